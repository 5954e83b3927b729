package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

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
