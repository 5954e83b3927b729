package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// settleTime is how long regular usage must stand still, without room for it, before it lifts
// the limit. A source pod that has ended in the caches looks like regular usage until
// kube-controller-manager has recounted.
const settleTime = time.Second

// A baseline separates regular usage that was there before an offer, which lifts the limit
// where it is above static, from usage that came while room was open: a target pod that the
// caches do not show yet, or what a regular workload has taken. The latter does not lift the
// limit: otherwise a tenant that takes each offer would gain quota without bound.
//
// The zero value knows nothing: what it sees first was there before.
type baseline struct {
	legit corev1.ResourceList // regular usage that was not taken: the most that stood still
	taken corev1.ResourceList // of the room of migrations; nil: nothing
	most  corev1.ResourceList // that was taken, since regular usage stood still

	// At the last look:
	open    bool                // an offer was open
	excess  corev1.ResourceList // regular usage above static and legit
	regular corev1.ResourceList
	since   time.Time // since when it has been that, and there was no room
}

// room is what regular usage could have taken since the last look.
type room int

const (
	noRoom    room = iota
	heldRoom       // for pods that charged migrations do not hold yet
	offerRoom      // for target pods
)

// look records the regular usage of now.
func (b *baseline) look(static, regular corev1.ResourceList, is room, now time.Time) {
	legit := make(corev1.ResourceList, len(regular))
	for name, q := range regular {
		before, known := b.legit[name]
		if !known {
			before = q
		}
		legit[name] = most(before, least(q, static[name])) // what fits static is nobody else's
	}
	b.legit = legit
	b.excess = positive(each(regular, each(legit, static, most), minus))
	switch is {
	case offerRoom: // what has come may be the target pods; see take
	case heldRoom:
		b.take()
	case noRoom:
		// It ends when usage falls, and is back if usage only seemed to: the caches may show
		// a recount before they show that a pod has ended.
		b.taken = positive(each(b.most, b.excess, least))
	}
	b.open = is == offerRoom
	if is != noRoom || !quota.Equal(regular, b.regular) {
		b.regular, b.since = regular, now
	}
	if now.Sub(b.since) >= settleTime {
		b.legit, b.excess, b.most = each(regular, b.taken, minus), b.taken, b.taken.DeepCopy()
	}
}

// take records that what was above static at the last look, and is no target pod, was taken: there
// is no more open offer, or none was.
func (b *baseline) take() {
	b.taken = b.excess
	for name, q := range b.excess {
		b.most = set(b.most, name, most(b.most[name], q))
	}
}

// unsettled returns for how long it is not known yet whether regular usage that is above
// static, and came when there was no room, lifts the limit.
func (b *baseline) unsettled(now time.Time) time.Duration {
	if b.open || !exceeds(b.excess, b.taken) {
		return 0
	}
	return b.since.Add(settleTime).Sub(now)
}

// before returns regular without what has come since an offer was made.
func (b *baseline) before(static, regular corev1.ResourceList) corev1.ResourceList {
	if !b.open {
		return regular
	}
	return each(regular, each(each(b.legit, static, most), b.taken, plus), least)
}

// forgiven is what of the taken is lifted for an offer all the same: as much as one
// migration charges, the largest that waits. So one theft does not stop a drain for good.
func (b *baseline) forgiven(waiting []quota.Migration) corev1.ResourceList {
	largest := corev1.ResourceList{}
	for i := range waiting {
		for name, q := range waiting[i].Surge {
			largest[name] = most(largest[name], q)
		}
	}
	return each(b.taken, largest, least)
}

// lift returns how far regular usage lifts the limits, with so much of it forgiven.
func (b *baseline) lift(forgiven corev1.ResourceList) corev1.ResourceList {
	return each(b.legit, forgiven, plus)
}

// positive returns what of list is above zero; nil if nothing is.
func positive(list corev1.ResourceList) corev1.ResourceList {
	var left corev1.ResourceList
	for name, q := range list {
		if q.Sign() > 0 {
			left = set(left, name, q)
		}
	}
	return left
}

// set puts value into m, which may be nil.
func set[M ~map[K]V, K comparable, V any](m M, key K, value V) M {
	if m == nil {
		m = M{}
	}
	m[key] = value
	return m
}

var (
	each, exceeds            = amounts.Each, amounts.Exceeds
	plus, minus, least, most = amounts.Plus, amounts.Minus, amounts.Min, amounts.Max
)
