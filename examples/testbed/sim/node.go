package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
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

// playPod plays scheduler and kubelet for one pod.
func (s *Simulator) playPod(ctx context.Context, now *view, pod *corev1.Pod) error {
	switch {
	case pod.Spec.NodeName == "":
		if pod.DeletionTimestamp != nil {
			return nil
		}
		return s.bind(ctx, now, pod)
	case !now.alive(pod.Spec.NodeName):
		return nil
	case pod.DeletionTimestamp != nil:
		return s.kill(ctx, pod)
	case pod.Status.Phase == corev1.PodPending && s.pace.over(s.step, step{what: "start", of: pod.UID}):
		return s.run(ctx, pod)
	}
	return nil
}

// run says that all containers of a pod run.
func (s *Simulator) run(ctx context.Context, pod *corev1.Pod) error {
	now := metav1.NewTime(s.pace.now())
	status := &pod.Status
	status.Phase = corev1.PodRunning
	status.StartTime = &now
	status.PodIP = "10.1.0.1"
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	status.Conditions = nil
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	status.InitContainerStatuses, status.ContainerStatuses = nil, nil
	for _, container := range pod.Spec.InitContainers {
		state := ended(now)
		if container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			state = running(now)
		}
		status.InitContainerStatuses = append(status.InitContainerStatuses, containerStatus(container, state))
	}
	for _, container := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, containerStatus(container, running(now)))
	}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// finish says that all containers of a pod have ended well.
func (s *Simulator) finish(ctx context.Context, pod *corev1.Pod) error {
	if terminal(pod) {
		return nil
	}
	pod = pod.DeepCopy()
	now := metav1.NewTime(s.pace.now())
	pod.Status.Phase = corev1.PodSucceeded
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			statuses[i].Ready = false
			statuses[i].State = ended(now)
		}
	}
	for i, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady || condition.Type == corev1.ContainersReady {
			pod.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// kill ends a pod that somebody deleted, and then removes it.
func (s *Simulator) kill(ctx context.Context, pod *corev1.Pod) error {
	if !s.pace.over(s.step, step{what: "kill", of: pod.UID}) {
		return nil
	}
	if !terminal(pod) {
		return s.finish(ctx, pod)
	}
	options := immediately
	options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	return s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
}

func running(now metav1.Time) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
}

func ended(now metav1.Time) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
}

func containerStatus(container corev1.Container, state corev1.ContainerState) corev1.ContainerStatus {
	started := true
	return corev1.ContainerStatus{
		Name:    container.Name,
		Image:   container.Image,
		ImageID: container.Image + "@sha256:0000000000000000000000000000000000000000000000000000000000000001",
		State:   state,
		Ready:   true,
		Started: &started,

		AllocatedResources: container.Resources.Requests,
		Resources:          container.Resources.DeepCopy(),
	}
}

// bind puts a pod on a node, if there is one for it.
func (s *Simulator) bind(ctx context.Context, now *view, pod *corev1.Pod) error {
	if len(pod.Spec.SchedulingGates) > 0 || waitsForClaims(pod) {
		return nil
	}
	node := choose(now, pod)
	if node == "" {
		return s.refuse(ctx, now, pod)
	}
	if !s.pace.over(s.step, step{what: "bind", of: pod.UID}) {
		return nil
	}
	return s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

// refuse says of a pod, once, that there is no node for it.
func (s *Simulator) refuse(ctx context.Context, now *view, pod *corev1.Pod) error {
	if len(pod.Status.Conditions) > 0 {
		return nil
	}
	pod = pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(s.pace.now()),
		Reason: corev1.PodReasonUnschedulable, Message: fmt.Sprintf("0/%d nodes are available.", len(now.nodes)),
	}}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// waitsForClaims tells whether ResourceClaims of a pod are still to be made from templates. They
// are never allocated: no device is simulated.
func waitsForClaims(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.ResourceClaims, func(claim corev1.PodResourceClaim) bool {
		return claim.ResourceClaimTemplateName != nil && !slices.ContainsFunc(pod.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool {
			return s.Name == claim.Name
		})
	})
}

// choose returns the node with the fewest pods among those that the pod may run on;
// empty if there is none. How much a pod asks for does not matter.
func choose(now *view, pod *corev1.Pod) string {
	load := map[string]int{}
	for _, other := range now.pods {
		if !terminal(other) {
			load[other.Spec.NodeName]++
		}
	}
	var best string
	for name, node := range now.nodes {
		if !fits(now, pod, node) {
			continue
		}
		if best == "" || cmp.Or(cmp.Compare(load[name], load[best]), cmp.Compare(name, best)) < 0 {
			best = name
		}
	}
	return best
}

// fits tells whether a pod may run on a node. Of the affinities between pods there is
// one: a virtual machine has no two virt-launchers on the same node.
func fits(now *view, pod *corev1.Pod, node *corev1.Node) bool {
	if node.Spec.Unschedulable || !isReady(node) || dead(node) {
		return false
	}
	_, untolerated := schedulingcorev1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule
	}, false)
	if untolerated {
		return false
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !matches {
		return false
	}
	return !slices.ContainsFunc(now.launchers[machineOf(pod)], func(other *corev1.Pod) bool {
		return other.Spec.NodeName == node.Name && !terminal(other)
	})
}
