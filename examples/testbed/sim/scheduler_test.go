package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

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
