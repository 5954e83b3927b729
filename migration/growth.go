package migration

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// hotPlugs reports of which resources this migration carries out a hot-plug. A condition that
// is False says that the hot-plug failed.
func (m *machine) hotPlugs() (cpu, memory bool) {
	changes := func(condition kubevirtv1.VirtualMachineInstanceConditionType) bool {
		return slices.ContainsFunc(m.vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
			return c.Type == condition && c.Status != corev1.ConditionFalse
		})
	}
	return changes(kubevirtv1.VirtualMachineInstanceVCPUChange), changes(kubevirtv1.VirtualMachineInstanceMemoryChange)
}

// growth returns, in ResourceQuota names, by how much the guest in target is larger
// than in source because of a hot-plug that this migration carries out. That is not
// surge: it stays when the migration is over, so it must fit the static quota.
//
// It is read from the compute containers. Larger memory overhead is no growth of the
// guest, and neither are limits that KubeVirt added because a quota now demands them:
// of those the guest's growth is a core for each virtual CPU, and as much of the
// memory limit as of the request.
func (m *machine) growth(source, target *corev1.Pod) corev1.ResourceList {
	before, after := computeOf(source), computeOf(target)
	if before == nil || after == nil {
		return nil
	}
	more := corev1.ResourceList{}
	cpu, memory := m.hotPlugs()
	if cpu {
		request, limit := m.growthOf(corev1.ResourceCPU, before, after, resource.Quantity{})
		more[corev1.ResourceCPU], more[corev1.ResourceRequestsCPU], more[corev1.ResourceLimitsCPU] = request, request, limit
	}
	if memory {
		request, limit := m.growthOf(corev1.ResourceMemory, before, after, grown(overhead(source), overhead(target)))
		more[corev1.ResourceMemory], more[corev1.ResourceRequestsMemory] = request, request
		more[corev1.ResourceLimitsMemory] = limit
		for name, q := range after.Requests {
			if isHugePages(name) {
				pages := amounts.Minus(q, before.Requests[name])
				more[name], more[corev1.DefaultResourceRequestsPrefix+name] = pages, pages
			}
		}
	}
	return more
}

// growthOf returns by how much the guest's request and limit of one resource grew,
// overhead being what infrastructure takes of it.
func (m *machine) growthOf(
	name corev1.ResourceName, before, after *corev1.ResourceRequirements, overhead resource.Quantity,
) (request, limit resource.Quantity) {
	request = amounts.Minus(amounts.Minus(after.Requests[name], before.Requests[name]), m.inRequest(overhead))
	newLimit, oldLimit, whole := after.Limits[name], before.Limits[name], after.Requests[name]
	switch {
	case !missing(m.vmi.Spec.Domain.Resources.Limits, name):
		return request, amounts.Minus(amounts.Minus(newLimit, oldLimit), overhead)
	case name == corev1.ResourceCPU:
		return request, amounts.Minus(newLimit, m.cpuLimit(oldLimit))
	default:
		product := newLimit.AsApproximateFloat64() * request.AsApproximateFloat64() / whole.AsApproximateFloat64()
		limit, _ = quantityOf(math.Round(product), newLimit.Format)
		return request, limit
	}
}

// expectedGrowth returns, in ResourceQuota names, what the target pod of vmim will be
// charged for beside the surge, because it carries out a hot-plug; nil if it does not. What
// quota said that it was asked for when it refused the target pod is more exact than what the
// VMI shows.
func (m *machine) expectedGrowth(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod,
) corev1.ResourceList {
	cpu, memory := m.hotPlugs()
	if current == nil || !cpu && !memory {
		return nil
	}
	target := m.expectedTarget(current)
	surge := quota.Footprint(target)
	if container := computeOf(target); container != nil {
		before := *container.DeepCopy()
		if cpu {
			m.growCPU(container)
		}
		if memory {
			m.growMemory(container, current)
		}
		enlarge(container.Requests, before.Requests)
		enlarge(container.Limits, before.Limits)
	}
	more := quota.Footprint(target)
	maps.Copy(more, refusedRequest(m.refusalsOf(vmim), podRefusal, more))
	subtract(more, surge)
	maps.DeleteFunc(more, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.Sign() <= 0 })
	return more
}

// growCPU gives r the processors that the VMI asks for.
func (m *machine) growCPU(r *corev1.ResourceRequirements) {
	asked, vCPUs := m.vmi.Spec.Domain.Resources, threadsOf(m.vmi.Spec.Domain.CPU)
	r.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(vCPUs*100, resource.DecimalSI)
	r.Limits[corev1.ResourceCPU] = *resource.NewQuantity(vCPUs, resource.DecimalSI)
	set(r.Requests, asked.Requests, corev1.ResourceCPU, resource.Quantity{})
	set(r.Limits, asked.Limits, corev1.ResourceCPU, resource.Quantity{})
}

// growMemory gives r the memory that the VMI asks for, with the overhead of source.
func (m *machine) growMemory(r *corev1.ResourceRequirements, source *corev1.Pod) {
	domain := m.vmi.Spec.Domain
	above := *cmp.Or(m.overhead(), overhead(source), &resource.Quantity{})
	if domain.Memory != nil && domain.Memory.Guest != nil {
		r.Requests[corev1.ResourceMemory] = amounts.Plus(*domain.Memory.Guest, m.inRequest(above))
	}
	set(r.Requests, domain.Resources.Requests, corev1.ResourceMemory, m.inRequest(above))
	set(r.Limits, domain.Resources.Limits, corev1.ResourceMemory, above)
	if missing(domain.Resources.Limits, corev1.ResourceMemory) {
		m.limitMemory(r)
	}
}

// set makes to[name] from[name] and more, if from has it.
func set(to, from corev1.ResourceList, name corev1.ResourceName, more resource.Quantity) {
	if q, ok := from[name]; ok {
		to[name] = amounts.Plus(q, more)
	}
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

// inRequest returns how much of a memory overhead the request of a target pod contains.
func (m *machine) inRequest(overhead resource.Quantity) resource.Quantity {
	if m.vmi.Spec.Domain.Resources.OvercommitGuestOverhead {
		return resource.Quantity{}
	}
	return overhead
}

// overhead returns the memory overhead that KubeVirt reports for the VMI; nil if it does not.
func (m *machine) overhead() *resource.Quantity {
	if m.vmi.Status.Memory == nil {
		return nil
	}
	return m.vmi.Status.Memory.MemoryOverhead
}

// overhead returns the memory overhead that KubeVirt rendered pod with, in bytes; nil if the pod
// does not say it, and zero of no pod.
func overhead(pod *corev1.Pod) *resource.Quantity {
	if pod == nil {
		return &resource.Quantity{}
	}
	bytes, err := strconv.ParseInt(pod.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes], 10, 64)
	if err != nil || bytes < 0 {
		return nil
	}
	return resource.NewQuantity(bytes, resource.BinarySI)
}

// grown returns after - before, or zero if that is less or one of them is not known.
func grown(before, after *resource.Quantity) resource.Quantity {
	if before == nil || after == nil {
		return resource.Quantity{}
	}
	return amounts.Minus(*after, *before)
}
