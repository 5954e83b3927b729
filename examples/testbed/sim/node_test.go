package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

func TestPodIsBoundAndStarts(t *testing.T) {
	w := newWorld(t)
	w.newPod("p")
	w.play(time.Second - 1)
	require.Empty(t, w.pod("p").Spec.NodeName, "a step is not over")
	w.play(1)
	require.Equal(t, "a", w.pod("p").Spec.NodeName)
	require.Equal(t, corev1.PodPending, w.pod("p").Status.Phase)
	w.play(time.Second + 1)

	pod := w.pod("p")
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	require.Len(t, pod.Status.InitContainerStatuses, 2)
	require.NotNil(t, pod.Status.InitContainerStatuses[0].State.Terminated, "a plain init container has ended")
	require.NotNil(t, pod.Status.InitContainerStatuses[1].State.Running, "a sidecar runs")
	require.True(t, pod.Status.ContainerStatuses[0].Ready)
	require.Equal(t, []corev1.ConditionStatus{"True", "True", "True", "True"}, statuses(pod))

	w.play(time.Minute)
	w.pass()
	require.Empty(t, w.writes(), "nothing is due")
}

func statuses(pod *corev1.Pod) []corev1.ConditionStatus {
	var result []corev1.ConditionStatus
	for _, condition := range pod.Status.Conditions {
		result = append(result, condition.Status)
	}
	return result
}

func TestDeletedPodEndsAndThenGoes(t *testing.T) {
	w := newWorld(t)
	w.newPod("p", onNode("a"))
	w.play(2 * time.Second)
	w.deletePod("p")
	w.play(time.Second - 1)
	require.Equal(t, corev1.PodRunning, w.pod("p").Status.Phase)
	w.play(time.Second)
	_, err := w.client.CoreV1().Pods(namespace).Get(t.Context(), "p", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "%v", err)
}

func TestScheduler(t *testing.T) {
	ready := func(status corev1.ConditionStatus) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
		}
	}
	taint := func(effect corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) { setTaint(n, "k", effect, true) }
	}
	unchanged := func(*corev1.Node) {}
	for name, test := range map[string]struct {
		a, b   func(*corev1.Node) // what the nodes are like; c is cordoned
		others []func(*corev1.Pod)
		pod    func(*corev1.Pod)
		want   string
	}{
		"the first of equal ones":   {want: "a"},
		"the one with fewest pods":  {others: []func(*corev1.Pod){onNode("a")}, want: "b"},
		"ended pods do not matter":  {others: []func(*corev1.Pod){both(onNode("a"), hasEnded)}, want: "a"},
		"not a cordoned one":        {a: func(n *corev1.Node) { n.Spec.Unschedulable = true }, want: "b"},
		"not one that is not ready": {a: ready(corev1.ConditionUnknown), want: "b"},
		"not a tainted one":         {a: taint(corev1.TaintEffectNoSchedule), want: "b"},
		"a weak taint is none":      {a: taint(corev1.TaintEffectPreferNoSchedule), want: "a"},
		"a tainted one if tolerated": {
			a: taint(corev1.TaintEffectNoExecute), want: "a",
			pod: func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: "Exists"}} },
		},
		"the selected one": {
			b: func(n *corev1.Node) { n.Labels["k"] = "v" }, want: "b",
			pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"k": "v"} },
		},
		"none that is selected":               {pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"k": "v"} }},
		"not where the machine runs":          {others: []func(*corev1.Pod){both(onNode("a"), launcherOf("vm"))}, pod: launcherOf("vm"), want: "b"},
		"where the machine ran":               {others: []func(*corev1.Pod){both(onNode("a"), launcherOf("vm"), hasEnded)}, pod: launcherOf("vm"), want: "a"},
		"where another machine runs":          {others: []func(*corev1.Pod){both(onNode("a"), launcherOf("other")), onNode("b"), onNode("b")}, pod: launcherOf("vm"), want: "a"},
		"nowhere if no node is left":          {a: ready(corev1.ConditionFalse), b: taint(corev1.TaintEffectNoSchedule)},
		"not on one that was told to be dead": {a: func(n *corev1.Node) { n.Annotations[DeadAnnotation] = "true" }, want: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for node, change := range map[string]func(*corev1.Node){"a": test.a, "b": test.b, "c": func(n *corev1.Node) { n.Spec.Unschedulable = true }} {
				if change == nil {
					change = unchanged
				}
				w.changeNode(node, change)
			}
			for i, other := range test.others {
				w.newPod("other"+string(rune('0'+i)), other)
			}
			if test.pod == nil {
				test.pod = func(*corev1.Pod) {}
			}
			w.newPod("p", test.pod)
			w.refresh()
			require.Equal(t, test.want, choose(w.sim.view(), w.pod("p")))
		})
	}
}

func TestPodThatWaitsIsNotBound(t *testing.T) {
	w := newWorld(t)
	w.newPod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} })
	w.newPod("deleted")
	w.deletePod("deleted")
	w.play(time.Minute)
	require.Empty(t, w.pod("gated").Spec.NodeName)
	require.Empty(t, w.pod("deleted").Spec.NodeName)
}

func both(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		for _, change := range changes {
			change(pod)
		}
	}
}

func hasEnded(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodSucceeded
}
