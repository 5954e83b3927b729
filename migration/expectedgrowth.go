package migration

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// expectedGrowth returns, in ResourceQuota names, what the target pod of vmim will be
// charged for beside the surge, because it carries out a hot-plug; nil if it does not. What
// quota said that it was asked for when it refused the target pod is more exact than what the
// VMI shows.
func (m *machine) expectedGrowth(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) corev1.ResourceList {
	cpu, memory := m.changes(kubevirtv1.VirtualMachineInstanceVCPUChange), m.changes(kubevirtv1.VirtualMachineInstanceMemoryChange)
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
	grown := quota.Footprint(target)
	for name, asked := range refusedRequest(m.refusalsOf(vmim), podRefusal, grown) {
		grown[name] = asked
	}
	subtract(grown, surge)
	maps.DeleteFunc(grown, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.Sign() <= 0 })
	return grown
}

// growCPU gives c the processors that the VMI asks for.
func (m *machine) growCPU(c *corev1.ResourceRequirements) {
	asked := m.vmi.Spec.Domain.Resources
	vCPUs := int64(1)
	if cpu := m.vmi.Spec.Domain.CPU; cpu != nil {
		vCPUs = product(cpu.Sockets, cpu.Cores, cpu.Threads)
	}
	c.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(vCPUs*100, resource.DecimalSI)
	c.Limits[corev1.ResourceCPU] = *resource.NewQuantity(vCPUs, resource.DecimalSI)
	set(c.Requests, asked.Requests, corev1.ResourceCPU, resource.Quantity{})
	set(c.Limits, asked.Limits, corev1.ResourceCPU, resource.Quantity{})
}

// growMemory gives c the memory that the VMI asks for, with the overhead of source.
func (m *machine) growMemory(c *corev1.ResourceRequirements, source *corev1.Pod) {
	domain := m.vmi.Spec.Domain
	above, _ := overhead(source)
	if m.vmi.Status.Memory != nil && m.vmi.Status.Memory.MemoryOverhead != nil {
		above = m.vmi.Status.Memory.MemoryOverhead.DeepCopy()
	}
	inRequest := above
	if domain.Resources.OvercommitGuestOverhead {
		inRequest = resource.Quantity{}
	}
	if domain.Memory != nil && domain.Memory.Guest != nil {
		set(c.Requests, corev1.ResourceList{corev1.ResourceMemory: *domain.Memory.Guest}, corev1.ResourceMemory, inRequest)
	}
	set(c.Requests, domain.Resources.Requests, corev1.ResourceMemory, inRequest)
	set(c.Limits, domain.Resources.Limits, corev1.ResourceMemory, above)
	if missing(domain.Resources.Limits, corev1.ResourceMemory) {
		request := c.Requests[corev1.ResourceMemory]
		if limit, ok := integer(request.AsApproximateFloat64() * m.memoryLimitRatio()); ok {
			c.Limits[corev1.ResourceMemory] = *resource.NewQuantity(limit, request.Format)
		}
	}
}

// set makes to[name] from[name] and more, if from has it.
func set(to, from corev1.ResourceList, name corev1.ResourceName, more resource.Quantity) {
	if q, ok := from[name]; ok {
		q = q.DeepCopy()
		q.Add(more)
		to[name] = q
	}
}
