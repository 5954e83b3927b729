package migration

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// hotPlugs reports whether this migration carries out a hot-plug of a resource of the guest. A
// condition that is False says that the hot-plug failed.
func (m *machine) hotPlugs(name corev1.ResourceName) bool {
	condition := kubevirtv1.VirtualMachineInstanceMemoryChange
	switch {
	case name == corev1.ResourceCPU:
		condition = kubevirtv1.VirtualMachineInstanceVCPUChange
	case name != corev1.ResourceMemory && !isHugePages(name):
		return false
	}
	return slices.ContainsFunc(m.vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == condition && c.Status != corev1.ConditionFalse
	})
}

// grows reports whether this migration carries out any hot-plug.
func (m *machine) grows() bool {
	return m.hotPlugs(corev1.ResourceCPU) || m.hotPlugs(corev1.ResourceMemory)
}

// growth returns, in ResourceQuota names, by how much the guest in target is larger
// than in source because of a hot-plug that this migration carries out. That is not
// surge: it stays when the migration is over, so it must fit the static quota.
//
// It is what the compute container asks for beyond what it would without the hot-plug.
// Larger memory overhead is no growth of the guest, and neither are limits that KubeVirt
// added because a quota now demands them.
func (m *machine) growth(source, target *corev1.Pod) corev1.ResourceList {
	before := computeOf(m.expectedTarget(source, grown(overhead(source), overhead(target))))
	after := computeOf(target)
	if before == nil || after == nil {
		return nil
	}
	more := corev1.ResourceList{}
	for name, q := range after.Requests {
		if m.hotPlugs(name) {
			more[name] = amounts.Minus(q, before.Requests[name])
			more[corev1.DefaultResourceRequestsPrefix+name] = more[name]
		}
	}
	for name, q := range after.Limits {
		if m.hotPlugs(name) {
			more["limits."+name] = amounts.Minus(q, before.Limits[name])
		}
	}
	return more
}

// expectedGrowth returns, in ResourceQuota names, what the target pod of vmim will be
// charged for beside the surge, because it carries out a hot-plug; nil if it does not. What
// quota said that it was asked for when it refused the target pod is more exact than what the
// VMI shows.
func (m *machine) expectedGrowth(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod,
) corev1.ResourceList {
	if current == nil || !m.grows() {
		return nil
	}
	target := m.expectedTarget(current, m.addedOverhead(current))
	surge := quota.Footprint(target)
	if container := computeOf(target); container != nil {
		asked := m.guestResources(threadsOf(m.vmi.Spec.Domain.CPU))
		m.addOverhead(&asked, *cmp.Or(m.overhead(), overhead(current), &resource.Quantity{}))
		m.addAutoLimits(&asked)
		fixed := func(name corev1.ResourceName, _ resource.Quantity) bool { return !m.hotPlugs(name) }
		maps.DeleteFunc(asked.Requests, fixed)
		maps.DeleteFunc(asked.Limits, fixed)
		enlarge(container.Requests, asked.Requests)
		enlarge(container.Limits, asked.Limits)
	}
	more := quota.Footprint(target)
	maps.Copy(more, refusedRequest(m.refusalsOf(vmim), podRefusal, more))
	more = amounts.Each(more, surge, amounts.Minus)
	maps.DeleteFunc(more, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.Sign() <= 0 })
	return more
}

// computeOf returns the resources of the container of pod that runs the virtual machine; nil if
// there is none.
func computeOf(pod *corev1.Pod) *corev1.ResourceRequirements {
	if pod == nil {
		return nil
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == compute {
			return &pod.Spec.Containers[i].Resources
		}
	}
	return nil
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}
