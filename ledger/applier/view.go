package applier

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// A setting is what all quotas of a namespace have in common.
type setting struct {
	now      time.Time
	inFlight []quota.Migration
	partial  bool // there may be migrations that cannot be read
	policy   quota.Policy
	disabled func(rq *corev1.ResourceQuota) bool
	guard    bool
	later    map[types.UID]bool // migrations that wait for another one of their VMI

	elsewhere map[types.UID]bool // migrations that were refused by a quota which is none of the namespace
}

// elsewhere returns the migrations that were refused by a quota which is none of quotas.
func elsewhere(inFlight []quota.Migration, quotas []*corev1.ResourceQuota) map[types.UID]bool {
	var elsewhere map[types.UID]bool
	for _, m := range inFlight {
		if m.RefusedBy != "" && !slices.ContainsFunc(quotas, func(rq *corev1.ResourceQuota) bool { return rq.Name == m.RefusedBy }) {
			elsewhere = with(elsewhere, m.UID)
		}
	}
	return elsewhere
}

// later returns the migrations that wait for another one of their VMI: KubeVirt creates a
// target pod only while the VMI has a single pod.
func later(inFlight []quota.Migration) map[types.UID]bool {
	var later map[types.UID]bool
	first := map[string]quota.Migration{}
	for _, m := range inFlight {
		other, taken := first[m.VMI]
		switch {
		case m.VMI == "":
		case !taken:
			first[m.VMI] = m
		case other.State >= quota.Charged && m.State >= quota.Charged:
		case other.State < quota.Charged && (m.State >= quota.Charged || quota.ByTurn(m, other) < 0):
			later = with(later, other.UID)
			first[m.VMI] = m
		default:
			later = with(later, m.UID)
		}
	}
	return later
}

// A view is one quota, and all that depends on what to do about it. Whoever plans only
// reads it.
type view struct {
	setting
	rq         *corev1.ResourceQuota
	memory     *memory
	migrations []quota.Migration  // inFlight, as this quota sees them
	charged    []quota.Migration  // those of them that are charged
	waiting    []quota.Migration  // the others
	off        bool               // a kill switch is on
	refused    time.Duration      // for how long not to write, because the API server refuses it
	inTheWay   map[types.UID]bool // of which waiting migrations: their target pods do not fit
	deferred   []quota.Deferral   // those of them that get no room here
	closed     quota.Decision     // the rule without any offer
	recounts   recounts
	held       time.Duration // for how long at most regular usage is believed to be more than it seems to be; zero: it is not

	queue map[types.UID]quota.DeferralReason // what those in the queue wait for
}

// view looks at one quota. It is where the baseline is brought up to date.
func (s setting) view(rq *corev1.ResourceQuota, m *memory) *view {
	v := &view{setting: s, rq: rq, memory: m, migrations: s.under(rq), off: s.disabled(rq)}
	v.charged, v.waiting = divide(v.migrations)
	v.refused = m.refusals.hold(rq, v.policy, v.now)
	d := v.decide(nil)
	is := noRoom
	switch {
	case len(m.history.offered) > 0:
		is = offerRoom
	case positive(d.Need) != nil:
		is = heldRoom
	}
	m.baseline.look(rq.Spec.Hard, v.counted(d.Regular), is, v.now)
	v.closed = v.decide(nil)
	v.recounts = m.history.recounts
	v.recounts.look(v)
	v.hold(&v.closed)
	limits := v.counted(v.closed.Hard)
	for _, m := range v.waiting {
		if short(m, limits, rq.Status.Used) != nil {
			v.inTheWay = with(v.inTheWay, m.UID)
		}
	}
	return v
}

// under returns the migrations as rq sees them. They are read only.
func (s setting) under(rq *corev1.ResourceQuota) []quota.Migration {
	if len(rq.Spec.Scopes) == 0 && rq.Spec.ScopeSelector == nil {
		return s.inFlight // quota.Under would return copies of them
	}
	return quota.Under(rq, s.inFlight)
}

// counted returns what of list kube-controller-manager counts already.
func (v *view) counted(list corev1.ResourceList) corev1.ResourceList {
	counted := make(corev1.ResourceList, len(list))
	for name, q := range list {
		if _, ok := v.rq.Status.Hard[name]; ok {
			counted[name] = q
		}
	}
	return counted
}

// divide returns which of migrations are charged, and which wait for their target pods. The
// lists share memory with migrations if all are of one kind.
func divide(migrations []quota.Migration) (charged, waiting []quota.Migration) {
	n := 0
	for i := range migrations {
		if migrations[i].State >= quota.Charged {
			n++
		}
	}
	switch n {
	case len(migrations):
		return slices.Clip(migrations), nil
	case 0:
		return nil, slices.Clip(migrations)
	}
	charged, waiting = make([]quota.Migration, 0, n), make([]quota.Migration, 0, len(migrations)-n)
	for _, m := range migrations {
		if m.State >= quota.Charged {
			charged = append(charged, m)
		} else {
			waiting = append(waiting, m)
		}
	}
	return charged, waiting
}

// enqueue tells the views what migrations wait for in the queue.
func enqueue(views []*view, queue map[types.UID]quota.DeferralReason) {
	for _, v := range views {
		v.queue = queue
	}
}

// queued returns the waiting migrations that are not deferred by any quota and have no offer.
func (v *view) queued() []quota.Deferral {
	var queued []quota.Deferral
	for _, m := range v.waiting {
		reason := v.queue[m.UID]
		switch {
		case v.later[m.UID]:
			reason = Behind
		case v.inTheWay[m.UID] && v.unsettled() > 0:
			reason = Unsettled
		}
		if reason == "" || slices.ContainsFunc(v.deferred, func(d quota.Deferral) bool { return d.UID == m.UID }) {
			continue
		}
		missing := short(m, v.counted(v.closed.Hard), v.rq.Status.Used)
		queued = append(queued, quota.Deferral{UID: m.UID, Reason: reason, Missing: missing})
	}
	return queued
}

// short returns what m needs beyond limits; nil if it fits.
func short(m quota.Migration, limits, used corev1.ResourceList) corev1.ResourceList {
	var missing corev1.ResourceList
	for name, limit := range limits {
		need := plus(m.Surge[name], m.Growth[name])
		if lack := minus(plus(used[name], need), limit); need.Sign() > 0 && lack.Sign() > 0 {
			missing = set(missing, name, lack)
		}
	}
	return missing
}

// concerned reports whether there is anything to do or to tell: the quota is raised, or
// limits anything that its migrations charge twice, or something was taken.
func (v *view) concerned() bool {
	if v.isAnnotated() || exceeds(v.rq.Status.Hard, v.rq.Spec.Hard) || v.memory.baseline.taken != nil {
		return true
	}
	for i := range v.migrations {
		for name, q := range v.migrations[i].Surge {
			if _, limited := v.rq.Spec.Hard[name]; limited && q.Sign() > 0 {
				return true
			}
		}
	}
	return false
}

// admit settles which of the migrations that wait may have a turn, and whether they need room,
// and tells the views what is deferred. A target pod has to pass all quotas that see it, so what
// gets no room in one of them gets none in any, and uses up no budget. Alone says to make one
// offer at a time, because room of offers was taken.
func admit(views []*view) (wants map[types.UID]bool, alone bool) {
	unwanted := map[types.UID]bool{}
	defers := func(v *view, deferred []quota.Deferral) {
		v.deferred = append(v.deferred, deferred...)
		for _, d := range deferred {
			unwanted[d.UID] = true
		}
	}
	for _, v := range views {
		never, _ := v.judge(nil)
		defers(v, never)
	}
	for _, v := range views {
		_, later := v.judge(unwanted)
		defers(v, later)
	}
	for _, v := range views {
		if v.unsettled() > 0 {
			for uid := range v.inTheWay {
				unwanted[uid] = true
			}
		}
	}
	for _, v := range views {
		alone = alone || v.memory.baseline.taken != nil
		for _, m := range v.waiting {
			if unwanted[m.UID] || v.later[m.UID] || v.elsewhere[m.UID] {
				continue
			}
			if wants == nil {
				wants = map[types.UID]bool{}
			}
			wants[m.UID] = wants[m.UID] || v.inTheWay[m.UID]
		}
	}
	return wants, alone
}
