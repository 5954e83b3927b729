package migration

import (
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

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
	grown := corev1.ResourceList{}
	if m.changes(kubevirtv1.VirtualMachineInstanceVCPUChange) {
		request, limit := m.growthOf(corev1.ResourceCPU, before, after, resource.Quantity{})
		grown[corev1.ResourceCPU], grown[corev1.ResourceRequestsCPU], grown[corev1.ResourceLimitsCPU] = request, request, limit
	}
	if m.changes(kubevirtv1.VirtualMachineInstanceMemoryChange) {
		request, limit := m.growthOf(corev1.ResourceMemory, before, after, overheadGrowth(source, target))
		grown[corev1.ResourceMemory], grown[corev1.ResourceRequestsMemory], grown[corev1.ResourceLimitsMemory] = request, request, limit
		for name, q := range after.Requests {
			if isHugePages(name) {
				more := less(q, before.Requests[name])
				grown[name], grown[corev1.DefaultResourceRequestsPrefix+name] = more, more
			}
		}
	}
	return grown
}

// changes reports whether this migration carries out a hot-plug. A condition that is
// False says that the hot-plug failed.
func (m *machine) changes(condition kubevirtv1.VirtualMachineInstanceConditionType) bool {
	for _, c := range m.vmi.Status.Conditions {
		if c.Type == condition {
			return c.Status != corev1.ConditionFalse
		}
	}
	return false
}

// growthOf returns by how much the guest's request and limit of one resource grew,
// overhead being what infrastructure takes of it.
func (m *machine) growthOf(name corev1.ResourceName, before, after *corev1.ResourceRequirements, overhead resource.Quantity) (request, limit resource.Quantity) {
	inRequest := overhead
	if m.vmi.Spec.Domain.Resources.OvercommitGuestOverhead {
		inRequest = resource.Quantity{}
	}
	request = less(less(after.Requests[name], before.Requests[name]), inRequest)
	newLimit, oldLimit := after.Limits[name], before.Limits[name]
	switch {
	case !missing(m.vmi.Spec.Domain.Resources.Limits, name):
		return request, less(less(newLimit, oldLimit), overhead)
	case name == corev1.ResourceCPU:
		return request, less(newLimit, m.cpuLimit(oldLimit))
	default:
		return request, portion(newLimit, request, after.Requests[name])
	}
}

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

// overheadGrowth returns how much more memory overhead KubeVirt gave target than
// source; zero where it does not say so on both.
func overheadGrowth(source, target *corev1.Pod) resource.Quantity {
	before, ok := overhead(source)
	after, too := overhead(target)
	if !ok || !too {
		return resource.Quantity{}
	}
	return less(after, before)
}

// overhead returns the memory overhead that KubeVirt rendered pod with, in bytes.
func overhead(pod *corev1.Pod) (resource.Quantity, bool) {
	bytes, err := strconv.ParseInt(pod.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes], 10, 64)
	if err != nil || bytes < 0 {
		return resource.Quantity{}, false
	}
	return *resource.NewQuantity(bytes, resource.BinarySI), true
}

// less returns a - b, or zero if b is greater.
func less(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) <= 0 {
		return resource.Quantity{Format: a.Format}
	}
	difference := a.DeepCopy()
	difference.Sub(b)
	return difference
}

// portion returns limit times part over whole, rounded to bytes; zero of zero.
func portion(limit, part, whole resource.Quantity) resource.Quantity {
	product := limit.AsApproximateFloat64() * part.AsApproximateFloat64() / whole.AsApproximateFloat64()
	bytes, ok := integer(math.Round(product))
	if !ok {
		return resource.Quantity{}
	}
	return *resource.NewQuantity(bytes, limit.Format)
}

// integer returns f as an integer, if it is one of those that a quantity holds.
func integer(f float64) (int64, bool) {
	if math.IsNaN(f) || f < 0 || f >= math.MaxInt64 {
		return 0, false
	}
	return int64(f), true
}

// ratio reads the label alpha.kubevirt.io/auto-memory-limits-ratio. KubeVirt takes any number
// from 1 (getMemoryLimitsRatio in its pkg/virt-controller/services/renderresources.go); more
// than maxMemoryLimitRatio is not believed, because whoever may label the namespace need not be
// the one who owns its quota.
func ratio(label string) float64 {
	r, err := strconv.ParseFloat(label, 64)
	if err != nil || math.IsNaN(r) || math.IsInf(r, 0) || r < 1 {
		return defaultMemoryLimitRatio
	}
	return min(r, maxMemoryLimitRatio)
}
