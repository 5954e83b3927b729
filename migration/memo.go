package migration

import (
	"sync"

	"github.com/vmquota/headroom/quota"
)

// Answers remember by namespace what [InFlight] returned for the last snapshot, so that a
// reconcile of a namespace in which nothing has changed computes nothing. Caches replace the
// objects that change, and do not write to them: as long as a snapshot has the same objects,
// its answer is the same.
type answers struct {
	mu          sync.Mutex
	byNamespace map[string]answer
}

// An answer is that for a snapshot of these objects.
type answer struct {
	objects  map[any]struct{} // pointers, which are not used again while they are here
	inFlight []quota.Migration
}

// inFlight returns InFlight(s), where s is of namespace. The result is read only.
func (a *answers) inFlight(namespace string, s Snapshot) []quota.Migration {
	a.mu.Lock()
	last := a.byNamespace[namespace]
	a.mu.Unlock()
	if last.isFor(s) {
		return last.inFlight
	}
	inFlight := InFlight(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(inFlight) == 0 || hasDeadline(s) {
		delete(a.byNamespace, namespace)
		return inFlight
	}
	if a.byNamespace == nil {
		a.byNamespace = map[string]answer{}
	}
	a.byNamespace[namespace] = answer{objects: s.objects(), inFlight: inFlight}
	return inFlight
}

// hasDeadline reports whether InFlight(s) depends on s.Now: a pod is being deleted.
func hasDeadline(s Snapshot) bool {
	for _, pod := range s.Pods {
		if pod != nil && pod.DeletionTimestamp != nil {
			return true
		}
	}
	return false
}

// isFor reports whether s has the objects of a, and no others.
func (a answer) isFor(s Snapshot) bool {
	if len(a.objects) == 0 || len(a.objects) != s.len() {
		return false
	}
	for object := range s.all {
		if _, known := a.objects[object]; !known {
			return false
		}
	}
	return true
}

func (s *Snapshot) objects() map[any]struct{} {
	objects := make(map[any]struct{}, s.len())
	for object := range s.all {
		objects[object] = struct{}{}
	}
	return objects
}

func (s *Snapshot) len() int {
	return len(s.Migrations) + len(s.VMIs) + len(s.Pods) + len(s.LimitRanges) + len(s.PVCs) + len(s.Events) +
		len(s.ResourceClaims) + len(s.DeviceClasses) + 1
}

// all yields a pointer to each object, and to the Namespace, which may be nil.
func (s *Snapshot) all(yield func(any) bool) {
	_ = yieldAll(s.Migrations, yield) && yieldAll(s.VMIs, yield) && yieldAll(s.Pods, yield) && yieldAll(s.LimitRanges, yield) &&
		yieldAll(s.PVCs, yield) && yieldAll(s.Events, yield) &&
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
