package fake

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

const (
	schedulerUser        = "kube-scheduler"
	kubeletUser          = "kubelet"
	garbageCollectorUser = "garbage-collector"
)

// nodes are the scheduler, the kubelets, the virt-handlers (see handler.go) and the garbage collector.
type nodes struct {
	*Cluster
	names    []string
	cordoned map[string]bool
	planned  map[string]bool // steps that are under way
}

func newNodes(c *Cluster) *nodes {
	n := &nodes{Cluster: c, cordoned: map[string]bool{}, planned: map[string]bool{}}
	for i := range c.config.Nodes {
		n.names = append(n.names, fmt.Sprintf("node%02d", i+1))
	}
	return n
}

// once takes a step after some time of lag, unless the same step is under way.
func (n *nodes) once(step string, lag Span, take func()) {
	if n.planned[step] {
		return
	}
	n.planned[step] = true
	n.clock.after(n.draw(lag), func() {
		delete(n.planned, step)
		take()
	})
}

func (n *nodes) observe(c change) {
	if c.after == nil {
		n.collectDependents(c.before, Pods, Claims, ResourceClaims)
		return
	}
	switch o := c.after.(type) {
	case *corev1.Pod:
		n.observePod(o)
	case *kubevirtv1.VirtualMachineInstance:
		n.observeVMI(o)
	case *kubevirtv1.VirtualMachineInstanceMigration:
		if vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&n.store, o.Namespace, o.Spec.VMIName); ok {
			n.observeVMI(vmi)
		}
	}
}

func (n *nodes) observePod(pod *corev1.Pod) {
	step := func(name string, change func(*corev1.Pod)) {
		n.once(name+" "+string(pod.UID), n.config.Timing.Node, func() { write(n.Cluster, kubeletUser, pod, change) })
	}
	switch {
	case pod.DeletionTimestamp != nil && ended(pod):
		n.once("forget "+string(pod.UID), n.config.Timing.Node, func() {
			now := metav1.DeleteOptions{GracePeriodSeconds: pointer(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
			_ = n.remove(kubeletUser, Pods, pod.Namespace, pod.Name, now) // or it is gone already
		})
	case pod.DeletionTimestamp != nil:
		step("kill", n.finish)
	case ended(pod), waitsForClaims(pod):
	case pod.Spec.NodeName == "":
		n.once("bind "+string(pod.UID), n.config.Timing.Node, func() { n.schedule(pod) })
	case pod.Status.Phase == corev1.PodPending:
		step("run", n.run)
	}
}

// schedule binds pod to the node with the fewest pods among those that may have it.
func (n *nodes) schedule(pod *corev1.Pod) {
	best := ""
	load := map[string]int{}
	taken := map[string]bool{}
	for _, other := range all[*corev1.Pod](&n.store, "") {
		if ended(other) {
			continue
		}
		load[other.Spec.NodeName]++
		if vmi := other.Labels[kubevirtv1.CreatedByLabel]; vmi != "" && vmi == pod.Labels[kubevirtv1.CreatedByLabel] {
			taken[other.Spec.NodeName] = true
		}
	}
	for _, node := range n.names {
		if !n.cordoned[node] && !taken[node] && (best == "" || load[node] < load[best]) {
			best = node
		}
	}
	if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == "Pod" {
		if launcher, ok := find[*corev1.Pod](&n.store, pod.Namespace, owner.Name); ok {
			best = launcher.Spec.NodeName
		}
	}
	if best == "" {
		write(n.Cluster, schedulerUser, pod, func(pod *corev1.Pod) {
			n.setPodCondition(pod, corev1.PodScheduled, corev1.ConditionFalse)
		})
		n.once("rebind "+string(pod.UID), Span{Min: retrySchedule, Max: retrySchedule}, func() {
			if latest, ok := find[*corev1.Pod](&n.store, pod.Namespace, pod.Name); ok && latest.UID == pod.UID {
				n.observePod(latest)
			}
		})
		return
	}
	write(n.Cluster, schedulerUser, pod, func(pod *corev1.Pod) {
		if pod.Spec.NodeName == "" && !ended(pod) {
			pod.Spec.NodeName = best
			n.setPodCondition(pod, corev1.PodScheduled, corev1.ConditionTrue)
		}
	})
}

func (n *nodes) run(pod *corev1.Pod) {
	if pod.Status.Phase != corev1.PodPending || pod.DeletionTimestamp != nil {
		return
	}
	now := n.stamp()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.StartTime = &now
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		n.setPodCondition(pod, t, corev1.ConditionTrue)
	}
}

// finish ends a pod. Its object stays.
func (n *nodes) finish(pod *corev1.Pod) {
	if !ended(pod) {
		pod.Status.Phase = corev1.PodSucceeded
	}
}

func (n *nodes) setPodCondition(pod *corev1.Pod, t corev1.PodConditionType, status corev1.ConditionStatus) {
	is := func(c corev1.PodCondition) bool { return c.Type == t && c.Status == status }
	if !slices.ContainsFunc(pod.Status.Conditions, is) {
		pod.Status.Conditions = slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t, Status: status, LastTransitionTime: n.stamp()})
	}
}

// collectDependents deletes what the object that is gone, or has ended, controls.
func (n *nodes) collectDependents(gone object, kinds ...Kind) {
	n.clock.after(n.draw(n.config.Timing.Wake), func() {
		for _, kind := range kinds {
			for _, o := range n.store.list(kind, gone.GetNamespace()) {
				if metav1.IsControlledBy(o, gone) {
					// It may be gone already.
					_ = n.remove(garbageCollectorUser, kind, o.GetNamespace(), o.GetName(), metav1.DeleteOptions{})
				}
			}
		}
	})
}
