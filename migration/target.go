package migration

import (
	"maps"
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota/amounts"
)

// compute is the name of the container that runs the virtual machine.
const compute = "compute"

// defaultMemoryLimitRatio is KubeVirt's DefaultMemoryLimitOverheadRatio.
const defaultMemoryLimitRatio = 2.0

// maxMemoryLimitRatio is the greatest ratio that a namespace can ask for, because whoever may
// label it need not own its quota. A target pod with more is learned from its refusal.
const maxMemoryLimitRatio = 10.0

// expectedTarget returns the target pod that KubeVirt would create now, as far as
// quota is concerned, but for the growth of the guest: the source pod with what may
// have changed since it was rendered, with that much more memory overhead. The growth
// must fit the static quota, so it is left out.
func (m *machine) expectedTarget(source *corev1.Pod, overhead resource.Quantity) *corev1.Pod {
	target := &corev1.Pod{}
	if source == nil {
		target.Spec.Containers = []corev1.Container{{Name: compute, Resources: m.guestResources(m.vCPUs())}}
	} else {
		target.Spec = *source.Spec.DeepCopy()
		target.Annotations = source.Annotations
	}
	for i := range target.Spec.Containers {
		c := &target.Spec.Containers[i]
		if c.Name == compute {
			own(&c.Resources)
			m.addOverhead(&c.Resources, overhead)
			m.addAutoLimits(&c.Resources)
		}
	}
	applyDefaults(m.defaults, target)
	return target
}

// own gives r maps that can be written to.
func own(r *corev1.ResourceRequirements) {
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	if r.Limits == nil {
		r.Limits = corev1.ResourceList{}
	}
}

// guestResources estimates the compute container from the VMI, with that many virtual CPUs
// and without overhead: WithoutDedicatedCPU, WithCPUPinning, WithMemoryRequests and WithHugePages in
// KubeVirt's pkg/virt-controller/services/renderresources.go.
func (m *machine) guestResources(vCPUs int64) corev1.ResourceRequirements {
	domain := m.vmi.Spec.Domain
	asked := domain.Resources
	r := corev1.ResourceRequirements{Requests: asked.Requests.DeepCopy(), Limits: asked.Limits.DeepCopy()}
	own(&r)
	if missing(r.Requests, corev1.ResourceCPU) {
		// KubeVirt's default allocation ratio is ten virtual CPUs to one.
		r.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(vCPUs*100, resource.DecimalSI)
	}
	if missing(r.Limits, corev1.ResourceCPU) || m.vmi.IsCPUDedicated() {
		r.Limits[corev1.ResourceCPU] = *resource.NewQuantity(vCPUs, resource.DecimalSI)
	}
	if m.vmi.IsCPUDedicated() {
		r.Requests[corev1.ResourceCPU] = r.Limits[corev1.ResourceCPU]
	}
	memory := domain.Memory
	if missing(r.Requests, corev1.ResourceMemory) && memory != nil && memory.Guest != nil {
		r.Requests[corev1.ResourceMemory] = memory.Guest.DeepCopy()
	}
	if memory != nil && memory.Hugepages != nil { // the guest is in these, and nothing but overhead in the rest
		pages := r.Requests[corev1.ResourceMemory]
		r.Requests[corev1.ResourceName(corev1.ResourceHugePagesPrefix+memory.Hugepages.PageSize)] = pages
		r.Requests[corev1.ResourceMemory] = resource.Quantity{}
		if limit, ok := r.Limits[corev1.ResourceMemory]; ok {
			r.Limits[corev1.ResourceMemory] = amounts.Minus(limit, pages)
		}
	}
	return r
}

// addOverhead adds memory overhead to r. Overheads come from annotations of pods, which whoever
// may write pods can forge: see trusted.
func (m *machine) addOverhead(r *corev1.ResourceRequirements, overhead resource.Quantity) {
	add := func(list corev1.ResourceList, more resource.Quantity) {
		if q, ok := list[corev1.ResourceMemory]; ok {
			list[corev1.ResourceMemory] = amounts.Min(amounts.Plus(q, more), trusted(q))
		}
	}
	add(r.Limits, overhead)
	add(r.Requests, m.inRequest(overhead))
}

// addAutoLimits gives c the limits that KubeVirt sets when a quota demands them and
// the VMI has none: doesVMIRequireAutoResourceLimits in its
// pkg/virt-controller/services/template.go. Where no quota demands them they are not
// there, and no quota counts them. Those that the source has may be older, and those
// of a LimitRange.
func (m *machine) addAutoLimits(r *corev1.ResourceRequirements) {
	auto := func(name corev1.ResourceName) bool {
		return missing(m.vmi.Spec.Domain.Resources.Limits, name) && (missing(r.Limits, name) || !m.vmi.IsCPUDedicated())
	}
	if auto(corev1.ResourceCPU) {
		r.Limits[corev1.ResourceCPU] = m.cpuLimit(r.Limits[corev1.ResourceCPU])
	}
	if auto(corev1.ResourceMemory) {
		m.limitMemory(r)
	}
}

// limitMemory gives r the limit that KubeVirt derives from the request. It multiplies that by a
// label of the namespace, which is any number from 1 (getMemoryLimitsRatio in its
// pkg/virt-controller/services/renderresources.go).
func (m *machine) limitMemory(r *corev1.ResourceRequirements) {
	ratio := defaultMemoryLimitRatio
	if m.Namespace != nil {
		label, err := strconv.ParseFloat(m.Namespace.Labels[kubevirtv1.AutoMemoryLimitsRatioLabel], 64)
		if err == nil && label >= 1 && !math.IsInf(label, 0) {
			ratio = min(label, maxMemoryLimitRatio)
		}
	}
	if request, ok := r.Requests[corev1.ResourceMemory]; ok {
		if limit := request.AsApproximateFloat64() * ratio; limit >= 0 && limit < math.MaxInt64 {
			r.Limits[corev1.ResourceMemory] = *resource.NewQuantity(int64(limit), request.Format)
		}
	}
}

// cpuLimit returns the limit that KubeVirt sets for the virtual CPUs that the guest
// has now, source being that of the source pod: if it is greater, that was rendered for
// a hot-plug that failed, and the target will be as large.
func (m *machine) cpuLimit(source resource.Quantity) resource.Quantity {
	if vCPUs := *resource.NewQuantity(m.vCPUs(), resource.DecimalSI); vCPUs.Cmp(source) > 0 {
		return vCPUs
	}
	return source
}

func missing(list corev1.ResourceList, name corev1.ResourceName) bool {
	_, ok := list[name]
	return !ok
}

// vCPUs returns how many virtual CPUs the guest has now, and the threads that count
// as such.
func (m *machine) vCPUs() int64 {
	n := threadsOf(m.vmi.Spec.Domain.CPU)
	if topology := m.vmi.Status.CurrentCPUTopology; topology != nil {
		n = product(topology.Sockets, topology.Cores, topology.Threads)
	}
	if threads := m.vmi.Spec.Domain.IOThreads; threads != nil && threads.SupplementalPoolThreadCount != nil {
		n += int64(*threads.SupplementalPoolThreadCount)
	}
	return n
}

// threadsOf returns how many virtual CPUs a VMI asks for; one if it says nothing.
func threadsOf(cpu *kubevirtv1.CPU) int64 {
	if cpu == nil {
		return 1
	}
	return product(cpu.Sockets, cpu.Cores, cpu.Threads)
}

// product multiplies the factors that are not zero.
func product(factors ...uint32) int64 {
	n := int64(1)
	for _, f := range factors {
		n *= int64(max(f, 1))
	}
	return n
}

// defaultsOf returns the defaults for containers of limitRanges. Where these disagree
// Kubernetes takes any: here it is the largest, so that the target pod fits.
func defaultsOf(limitRanges []*corev1.LimitRange) corev1.ResourceRequirements {
	var largest corev1.ResourceRequirements
	own(&largest)
	for _, limitRange := range oldestFirst(limitRanges) {
		requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
		for _, item := range limitRange.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				maps.Copy(requests, item.DefaultRequest)
				maps.Copy(limits, item.Default)
			}
		}
		dropOthers(requests, limits)
		enlarge(largest.Requests, requests)
		enlarge(largest.Limits, limits)
	}
	return largest
}

// applyDefaults adds defaults to the containers of pod that lack them, as the
// LimitRanger admission plugin does.
func applyDefaults(defaults corev1.ResourceRequirements, pod *corev1.Pod) {
	if len(defaults.Requests)+len(defaults.Limits) == 0 {
		return
	}
	completed := func(list, defaults corev1.ResourceList) corev1.ResourceList {
		all := defaults.DeepCopy()
		maps.Copy(all, list)
		return all
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			r := &containers[i].Resources
			r.Limits, r.Requests = completed(r.Limits, defaults.Limits), completed(r.Requests, defaults.Requests)
		}
	}
}

// enlarge makes a no less than b, in place.
func enlarge(a, b corev1.ResourceList) {
	for name, q := range b {
		if missing(a, name) || q.Cmp(a[name]) > 0 {
			a[name] = q
		}
	}
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

// addedOverhead returns by how much the memory overhead that KubeVirt reports for the VMI is larger
// than the one that source was rendered with, and what an upgrade adds to it.
func (m *machine) addedOverhead(source *corev1.Pod) resource.Quantity {
	return amounts.Plus(grown(overhead(source), m.overhead()), m.upgrade)
}

// grown returns after - before, or zero if that is less or one of them is not known.
func grown(before, after *resource.Quantity) resource.Quantity {
	if before == nil || after == nil {
		return resource.Quantity{}
	}
	return amounts.Minus(*after, *before)
}
