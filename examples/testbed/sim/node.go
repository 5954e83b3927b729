package sim

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// heartbeat is how often a node says that it is alive. KubeVirt believes it for five
// minutes.
const heartbeat = 30 * time.Second

// capacity is what a node has. No real one has as much.
var capacity = corev1.ResourceList{
	corev1.ResourceCPU:              *resource.NewQuantity(1000, resource.DecimalSI),
	corev1.ResourceMemory:           *resource.NewQuantity(10<<40, resource.BinarySI),
	corev1.ResourceEphemeralStorage: *resource.NewQuantity(10<<40, resource.BinarySI),
	corev1.ResourcePods:             *resource.NewQuantity(1000, resource.DecimalSI),
	"devices.kubevirt.io/kvm":       *resource.NewQuantity(1000, resource.DecimalSI),
	"devices.kubevirt.io/tun":       *resource.NewQuantity(1000, resource.DecimalSI),
	"devices.kubevirt.io/vhost-net": *resource.NewQuantity(1000, resource.DecimalSI),
}

// playNodes creates the nodes, lets their hearts beat, and lets those die that are to
// be dead. A node that somebody deletes comes back, unless it was dead.
func (s *Simulator) playNodes(ctx context.Context) error {
	beat := s.pace.now().Sub(s.beaten) >= heartbeat
	if beat {
		s.beaten = s.pace.now()
	}
	for _, name := range s.names {
		cached, known, err := s.caches.nodes.GetByKey(name)
		if err != nil {
			return err
		}
		node, _ := cached.(*corev1.Node)
		if known {
			s.died[name] = dead(node)
		} else if s.died[name] {
			continue
		}
		if known && !beat && isReady(node) != dead(node) {
			continue
		}
		if err := s.playNode(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// playNode creates a node if there is none, and says how it is.
func (s *Simulator) playNode(ctx context.Context, name string) error {
	nodes := s.client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nodes.Create(ctx, newNode(name), metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	if dead(node) && !isReady(node) {
		return nil
	}
	setTaint(node, corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule, false) // admission sets it on new nodes
	setTaint(node, corev1.TaintNodeUnreachable, corev1.TaintEffectNoSchedule, dead(node))
	if !dead(node) {
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, kubevirtv1.VirtHandlerHeartbeat, s.pace.now().UTC().Format(time.RFC3339))
		metav1.SetMetaDataLabel(&node.ObjectMeta, kubevirtv1.NodeSchedulable, "true")
	}
	if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	node.Status.Capacity, node.Status.Allocatable = capacity.DeepCopy(), capacity.DeepCopy()
	condition := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated"}
	if dead(node) {
		condition.Status = corev1.ConditionUnknown
	}
	condition.LastHeartbeatTime = metav1.NewTime(s.pace.now())
	condition.LastTransitionTime = condition.LastHeartbeatTime
	node.Status.Conditions = []corev1.NodeCondition{condition}
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func newNode(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname:                     name,
		corev1.LabelArchStable:                   "amd64",
		corev1.LabelOSStable:                     "linux",
		kubevirtv1.NodeSchedulable:               "true",
		kubevirtv1.CPUModelVendorLabel + "Intel": "true",
		"machine-type.node.kubevirt.io/q35":      "true",
	}}}
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// setTaint gives node a taint, or takes it away.
func setTaint(node *corev1.Node, key string, effect corev1.TaintEffect, on bool) {
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key })
	if on {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: effect})
	}
}

// drainTaint is the taint that KubeVirt evacuates nodes for, unless its configuration
// names another.
const drainTaint = "kubevirt.io/drain"

// Drain keeps new pods from a node, and makes KubeVirt migrate its virtual machines
// away.
func (s *Simulator) Drain(ctx context.Context, node string) error {
	return s.edit(ctx, node, func(n *corev1.Node) {
		n.Spec.Unschedulable = true
		setTaint(n, drainTaint, corev1.TaintEffectNoSchedule, true)
	})
}

// Undrain takes back what Drain has done.
func (s *Simulator) Undrain(ctx context.Context, node string) error {
	return s.edit(ctx, node, func(n *corev1.Node) {
		n.Spec.Unschedulable = false
		setTaint(n, drainTaint, corev1.TaintEffectNoSchedule, false)
	})
}

// KillNode lets a node die, with all that runs on it.
func (s *Simulator) KillNode(ctx context.Context, node string) error {
	return s.edit(ctx, node, func(n *corev1.Node) {
		metav1.SetMetaDataAnnotation(&n.ObjectMeta, DeadAnnotation, "true")
	})
}

func (s *Simulator) edit(ctx context.Context, name string, change func(*corev1.Node)) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := s.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(node)
		_, err = s.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
}
