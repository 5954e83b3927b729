package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
)

func TestNodesAreReadyAndTheirHeartsBeat(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		require.True(t, isReady(w.node(name)))
		require.Empty(t, w.node(name).Spec.Taints)
		require.Equal(t, "true", w.node(name).Labels[kubevirtv1.NodeSchedulable])
	}
	require.Equal(t, "2026-01-02T03:04:05Z", w.node("a").Annotations[kubevirtv1.VirtHandlerHeartbeat])
	w.play(heartbeat)
	require.Equal(t, "2026-01-02T03:04:35Z", w.node("a").Annotations[kubevirtv1.VirtHandlerHeartbeat])
}

func TestNodeComesBackWhenDeleted(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.client.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
	w.pass()
	require.True(t, isReady(w.node("a")))
}

func TestDeadNode(t *testing.T) {
	w := newWorld(t)
	w.newVMI("vm", "a")
	require.NoError(t, w.sim.KillNode(t.Context(), "a"))
	w.pass()
	require.False(t, isReady(w.node("a")))
	require.Equal(t, []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule}}, w.node("a").Spec.Taints)

	beat := w.node("a").Annotations[kubevirtv1.VirtHandlerHeartbeat]
	w.deletePod("vm-source")
	w.play(2 * heartbeat)
	require.Equal(t, beat, w.node("a").Annotations[kubevirtv1.VirtHandlerHeartbeat])
	require.Equal(t, corev1.PodRunning, w.pod("vm-source").Status.Phase, "nothing moves on it")

	w.changeNode("a", func(node *corev1.Node) { delete(node.Annotations, DeadAnnotation) })
	w.pass()
	require.True(t, isReady(w.node("a")))
	require.Empty(t, w.node("a").Spec.Taints)
	w.play(time.Second)
	require.Equal(t, corev1.PodSucceeded, w.pod("vm-source").Status.Phase)
}

func TestDeadNodeStaysDeleted(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.sim.KillNode(t.Context(), "a"))
	w.pass()
	require.NoError(t, w.client.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}))
	w.play(2 * heartbeat)
	nodes := try.Must(w.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}))(t)
	require.Len(t, nodes.Items, 2)
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.sim.Drain(t.Context(), "a"))
	w.play(heartbeat)
	require.True(t, w.node("a").Spec.Unschedulable)
	require.Equal(t, []corev1.Taint{{Key: "kubevirt.io/drain", Effect: corev1.TaintEffectNoSchedule}}, w.node("a").Spec.Taints)
	w.newPod("p")
	w.play(time.Second)
	require.Equal(t, "b", w.pod("p").Spec.NodeName)

	require.NoError(t, w.sim.Undrain(t.Context(), "a"))
	require.False(t, w.node("a").Spec.Unschedulable)
	require.Empty(t, w.node("a").Spec.Taints)
}
