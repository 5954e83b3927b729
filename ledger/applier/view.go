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
	now       time.Time
	inFlight  []quota.Migration
	partial   bool // there may be migrations that cannot be read
	policy    quota.Policy
	disabled  func(rq *corev1.ResourceQuota) bool
	guard     bool
	later     map[types.UID]bool // migrations that wait for another one of their VMI
	elsewhere map[types.UID]bool // migrations that were refused by a quota which is none of the namespace
}

// setting returns that of a namespace with these quotas.
func (c *Config) setting(namespace string, quotas []*corev1.ResourceQuota, inFlight []quota.Migration) setting {
	s := setting{now: c.Now(), inFlight: inFlight, guard: c.Guard, later: later(inFlight)}
	if c.Policy != nil {
		s.policy = c.Policy(namespace)
		s.policy.Lift, s.policy.Eager = nil, false
	}
	all := c.Disabled != nil && c.Disabled()
	s.disabled = func(rq *corev1.ResourceQuota) bool {
		return all || rq.Annotations[DisabledAnnotation] == "true" || c.DisabledFor != nil && c.DisabledFor(rq)
	}
	for _, m := range inFlight {
		if m.RefusedBy != "" && !slices.ContainsFunc(quotas, func(rq *corev1.ResourceQuota) bool { return rq.Name == m.RefusedBy }) {
			s.elsewhere = with(s.elsewhere, m.UID)
		}
	}
	return s
}

// later returns the migrations that wait for another one of their VMI: KubeVirt creates a
// target pod only while the VMI has a single pod.
func later(inFlight []quota.Migration) map[types.UID]bool {
	var later map[types.UID]bool
	first := map[string]quota.Migration{}
	for _, m := range inFlight {
		other, taken := first[m.VMI]
		switch {
		case m.VMI == "", m.OnlyClaims():
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
	standing   standing      // of the migrations of the namespace in the queue for offers
}

// views returns those of the quotas that there is anything to do about.
func (s setting) views(quotas []*corev1.ResourceQuota, m memories) []*view {
	var views []*view
	for _, rq := range quotas {
		known := m[rq.UID]
		if known != nil {
			rq = known.newest(rq)
		} else if len(s.inFlight) == 0 && !isAnnotated(rq) && quota.Equal(rq.Status.Hard, rq.Spec.Hard) {
			continue
		}
		if v := s.view(rq, m.of(rq)); v.concerned() {
			views = append(views, v)
		}
	}
	return views
}

// view returns that of one quota, and brings its baseline up to date.
func (s setting) view(rq *corev1.ResourceQuota, m *memory) *view {
	v := &view{setting: s, rq: rq, memory: m, migrations: s.inFlight, off: s.disabled(rq)}
	if len(rq.Spec.Scopes) > 0 || rq.Spec.ScopeSelector != nil { // otherwise quota.Under only copies
		v.migrations = quota.Under(rq, s.inFlight)
	}
	for _, m := range v.migrations {
		if m.State >= quota.Charged {
			v.charged = append(v.charged, m)
		} else {
			v.waiting = append(v.waiting, m)
		}
	}
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

// queued returns the waiting migrations that are not deferred by any quota and have no offer.
func (v *view) queued() []quota.Deferral {
	var queued []quota.Deferral
	for _, m := range v.waiting {
		reason := v.standing[m.UID]
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
	if isAnnotated(v.rq) || exceeds(v.rq.Status.Hard, v.rq.Spec.Hard) || v.memory.baseline.taken != nil {
		return true
	}
	return slices.ContainsFunc(v.migrations, func(m quota.Migration) bool {
		for name := range positive(m.Surge) {
			if _, limited := v.rq.Spec.Hard[name]; limited {
				return true
			}
		}
		return false
	})
}

// admit settles which of the migrations that wait may have a turn, and whether they need room,
// and notes in the views what is deferred. A target pod has to pass all quotas that see it, so
// what gets no room in one of them gets none in any, and uses up no budget. Alone means one
// offer at a time, because room of offers was taken.
func admit(views []*view) (wants map[types.UID]bool, alone bool) {
	wants = map[types.UID]bool{}
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
			if !unwanted[m.UID] && !v.later[m.UID] && !v.elsewhere[m.UID] {
				wants[m.UID] = wants[m.UID] || v.inTheWay[m.UID]
			}
		}
	}
	return wants, alone
}
