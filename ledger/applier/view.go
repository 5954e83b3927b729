package applier

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// A view is one quota, and what one Apply knows about it.
type view struct {
	setting
	rq         *corev1.ResourceQuota // not to be changed
	memory     *memory
	raise      *raise // nil: it is not raised
	static     corev1.ResourceList
	migrations []quota.Migration // inFlight, as this quota sees them
	off        bool              // nothing new is granted: one of the kill switches is on

	// unwanted are the migrations that get no headroom, here or in another quota of
	// the namespace; deferred are those of them that lack room here.
	unwanted map[types.UID]bool
	deferred []quota.Deferral
}

// A setting is what all quotas of a namespace have in common.
type setting struct {
	now      time.Time
	inFlight []quota.Migration
	partial  bool // there may be migrations that cannot be read
	policy   quota.Policy
	disabled func(rq *corev1.ResourceQuota) bool
	guarded  bool
}

// view returns what there is to know about rq. Its error is an Error.
func (s setting) view(rq *corev1.ResourceQuota, m *memory) (*view, error) {
	r, err := raiseOf(rq)
	if err != nil {
		return nil, err
	}
	return &view{
		setting:    s,
		rq:         rq,
		memory:     m,
		raise:      r,
		static:     r.limits(rq),
		migrations: quota.Under(rq, s.inFlight),
		off:        s.disabled(rq),
	}, nil
}

// latest returns v for a later version of the quota, or for another one of that name.
func (v *view) latest(rq *corev1.ResourceQuota, m *memory) (*view, error) {
	other, err := v.view(rq, m)
	if err != nil {
		return nil, err
	}
	other.unwanted, other.deferred = v.unwanted, v.deferred
	return other, nil
}

// concerned reports whether the quota is raised, or limits anything that its migrations
// charge twice.
func (v *view) concerned() bool {
	if v.raise != nil {
		return true
	}
	for i := range v.migrations {
		for name, q := range v.migrations[i].Surge {
			if _, limited := v.static[name]; limited && q.Sign() > 0 {
				return true
			}
		}
	}
	return false
}

// decide applies the rule, with this usage, to those migrations that may be granted.
func (v *view) decide(used corev1.ResourceList) quota.Decision {
	return v.policy.Decide(v.static, v.eligible(), used)
}

func (v *view) eligible() []quota.Migration {
	if !v.off && len(v.unwanted) == 0 {
		return v.migrations
	}
	return slices.DeleteFunc(slices.Clone(v.migrations), func(m quota.Migration) bool {
		return m.State < quota.Charged && (v.off || v.unwanted[m.UID])
	})
}

// A claim is what the granted migrations of a decision charge twice in all, and what of
// it they do not hold yet.
type claim struct{ surge, need corev1.ResourceList }

// claimed returns the claim of the migrations that d grants.
func (v *view) claimed(d quota.Decision) claim {
	limit := v.static
	if !v.policy.Strict {
		limit = each(v.static, d.Regular, most)
	}
	surge := each(d.Hard, limit, minus)
	return claim{surge: surge, need: each(surge, d.Temporary, minus)}
}

// on returns the part of c on the resources that m charges.
func (c claim) on(m quota.Migration) claim {
	c.surge = maps.Clone(c.surge)
	maps.DeleteFunc(c.surge, func(name corev1.ResourceName, _ resource.Quantity) bool {
		surge := m.Surge[name]
		return surge.Sign() <= 0
	})
	return c
}

// fits reports whether there is room for c in limits. Quota admission asks of a pod only
// about what it is charged for.
func (v *view) fits(c claim, limits corev1.ResourceList) bool {
	for name, surge := range c.surge {
		if surge.Sign() <= 0 {
			continue
		}
		wanted := plus(most(v.rq.Status.Used[name], resource.Quantity{}), c.need[name])
		if wanted.Cmp(limits[name]) > 0 {
			return false
		}
	}
	return true
}

// needsRaise reports whether d needs limits above static.
func (v *view) needsRaise(d quota.Decision) bool {
	c := v.claimed(d)
	return !none(c.surge) && (v.raise != nil || !v.off && !v.suffices(d, c))
}

// without returns those of deferred that have no room beside what d grants, in the limits
// that come of it. The others need no headroom.
func (v *view) without(d quota.Decision, deferred []quota.Deferral) []quota.Deferral {
	if len(deferred) == 0 {
		return nil
	}
	byUID := make(map[types.UID]quota.Migration, len(v.migrations))
	for _, m := range v.migrations {
		byUID[m.UID] = m
	}
	inside := make([]quota.Migration, 0, len(v.migrations))
	for _, uid := range d.Granted {
		inside = append(inside, byUID[uid])
	}
	limits := v.static
	if v.needsRaise(d) {
		limits = d.Hard
	}
	all := &view{rq: v.rq, static: v.static, setting: setting{policy: quota.Policy{Eager: true}}}
	var refused []quota.Deferral
	for _, deferral := range deferred {
		m := byUID[deferral.UID]
		all.migrations = append(inside, m)
		if !v.doubts(&m) && all.fits(all.claimed(all.decide(v.rq.Status.Used)).on(m), limits) {
			inside = all.migrations
			continue
		}
		refused = append(refused, deferral)
	}
	return refused
}

// switchedOff returns the deferrals by a kill switch.
func (v *view) switchedOff() []quota.Deferral {
	if !v.off {
		return nil
	}
	var deferred []quota.Deferral
	for _, m := range v.migrations {
		if m.State == quota.Blocked || m.State < quota.Blocked && v.policy.Eager {
			deferred = append(deferred, quota.Deferral{UID: m.UID, Reason: Disabled})
		}
	}
	return deferred
}

// defers notes which migrations get no headroom in this quota, and returns their UIDs:
// those that wait for the budget of the namespace, or those that do not.
func (v *view) defers(waiting bool, unwanted map[types.UID]bool) []types.UID {
	if !v.off && !v.policy.Strict && len(v.policy.Budget) == 0 {
		return nil
	}
	v.unwanted = maps.Clone(unwanted)
	d := v.decide(v.rq.Status.Used)
	var refused []types.UID
	for _, deferral := range v.without(d, append(v.switchedOff(), d.Deferred...)) {
		if (deferral.Reason == quota.BudgetUsed) == waiting {
			v.deferred = append(v.deferred, deferral)
			refused = append(refused, deferral.UID)
		}
	}
	return refused
}
