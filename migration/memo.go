package migration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// An answer is what [InFlight] returned for a snapshot of these objects, so that a reconcile of
// a namespace in which nothing has changed computes nothing. Caches replace the objects that
// change, and do not write to them: as long as a snapshot has the same objects, its answer is
// the same.
type answer struct {
	objects  map[any]struct{} // pointers, which are not used again while they are here
	inFlight []quota.Migration
}

// inFlight returns InFlight(s), which is read only.
func (h *history) inFlight(s Snapshot) []quota.Migration {
	if h.answer.isFor(s) {
		return h.answer.inFlight
	}
	inFlight := InFlight(s)
	h.answer = answer{}
	if len(inFlight) == 0 || hasDeadline(s, inFlight) {
		return inFlight
	}
	objects := map[any]struct{}{}
	for object := range s.all {
		objects[object] = struct{}{}
	}
	h.answer = answer{objects: objects, inFlight: inFlight}
	return inFlight
}

// hasDeadline reports whether InFlight(s) may depend on s.Now: a pod is being deleted, or a
// migration is not in flight before KubeVirt's back-off has ended.
func hasDeadline(s Snapshot, inFlight []quota.Migration) bool {
	return slices.ContainsFunc(s.Migrations, func(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
		if vmim == nil || !isPending(vmim) || !isAutomatic(vmim) {
			return false
		}
		_, known := find(inFlight, vmim.UID)
		return !known
	}) || slices.ContainsFunc(s.Pods, func(pod *corev1.Pod) bool { return pod != nil && pod.DeletionTimestamp != nil })
}

// isFor reports whether s has the objects of a, and no others.
func (a answer) isFor(s Snapshot) bool {
	n := 0
	for object := range s.all {
		if _, known := a.objects[object]; !known {
			return false
		}
		n++
	}
	return n == len(a.objects)
}

// all yields a pointer to each object, and to the Namespace, which may be nil.
func (s *Snapshot) all(yield func(any) bool) {
	_ = yieldAll(s.Migrations, yield) && yieldAll(s.VMIs, yield) && yieldAll(s.Pods, yield) &&
		yieldAll(s.LimitRanges, yield) && yieldAll(s.PVCs, yield) && yieldAll(s.Events, yield) &&
		yieldAll(s.ResourceClaims, yield) && yieldAll(s.DeviceClasses, yield) && yield(s.Namespace)
}

func yieldAll[T any](objects []*T, yield func(any) bool) bool {
	for _, object := range objects {
		if !yield(object) {
			return false
		}
	}
	return true
}
