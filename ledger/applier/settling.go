package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// settleTime is for how long usage must stand above what is known before it is taken
// for regular. The API server charges a target pod before the pod is stored, so usage is
// ahead of any ledger by the lag of a pod cache and a write; when a pod ends it is
// behind, by some milliseconds.
const settleTime = time.Second

// settling tells regular usage from that of pods that the ledger does not know of yet,
// or no longer, while a quota is raised. Nil knows nothing: what it sees first is settled.
type settling map[corev1.ResourceName]standing

// standing is the usage of one resource.
type standing struct {
	settled resource.Quantity // regular usage that is known as such
	above   resource.Quantity // what stood above it, and above static, ever since
	since   time.Time         // zero: nothing did
	taken   resource.Quantity // the part of settled that came to be above static
}

// look returns what of regular is not settled yet, and what has settled above static just
// now, and was not there when this began; both nil if there is nothing.
func (s *settling) look(static, regular corev1.ResourceList, now time.Time) (unsettled, taken corev1.ResourceList) {
	next := make(settling, len(regular))
	for name, q := range regular {
		is, known := (*s)[name]
		if !known {
			is = standing{settled: q.DeepCopy()}
		}
		up, late := is.look(static[name], q, now)
		next[name] = is
		unsettled, taken = with(unsettled, name, up), with(taken, name, late)
	}
	*s = next
	return unsettled, taken
}

func (s *standing) look(limit, regular resource.Quantity, now time.Time) (unsettled, taken resource.Quantity) {
	floor := most(limit, s.settled)
	above := minus(regular, floor)
	switch {
	case above.IsZero():
		*s = standing{settled: regular.DeepCopy(), taken: least(s.taken, minus(regular, limit))}
		return above, above
	case s.since.IsZero():
		s.above, s.since = above, now
	default:
		s.above = least(s.above, above)
	}
	if now.Sub(s.since) < settleTime {
		return above, resource.Quantity{}
	}
	// What was there during all of that time is no pod that the ledger is about to
	// learn of. The rest gets time of its own.
	taken = s.above
	s.settled, s.taken = plus(floor, taken), plus(s.taken, taken)
	s.above, s.since = minus(above, taken), now
	if s.above.IsZero() {
		s.since = time.Time{}
	}
	return s.above, taken
}

// again returns when to look again, zero if all is settled.
func (s settling) again(now time.Time) time.Duration {
	var again time.Duration
	for _, is := range s {
		if !is.since.IsZero() {
			again = sooner(again, is.since.Add(settleTime).Sub(now))
		}
	}
	return again
}

// taken returns what came to be above static, nil if there is nothing.
func (s settling) taken() corev1.ResourceList {
	var taken corev1.ResourceList
	for name, is := range s {
		taken = with(taken, name, is.taken)
	}
	return taken
}

// with adds q to list, which may be nil, if it is above zero.
func with(list corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) corev1.ResourceList {
	if q.Sign() <= 0 {
		return list
	}
	if list == nil {
		list = corev1.ResourceList{}
	}
	list[name] = q.DeepCopy()
	return list
}
