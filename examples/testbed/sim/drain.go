package sim

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

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

// ReviveNode lets a dead node go on where it was.
func (s *Simulator) ReviveNode(ctx context.Context, node string) error {
	return s.edit(ctx, node, func(n *corev1.Node) {
		delete(n.Annotations, DeadAnnotation)
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
