package main

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A ruling is the decision for one quota, with what went into it.
type ruling struct {
	quota      *corev1.ResourceQuota
	static     corev1.ResourceList
	migrations []quota.Migration // as the quota sees them
	decision   quota.Decision
}

// decide applies the policy to every quota of t.
func decide(t tenant, policy quota.Policy) (inFlight []quota.Migration, rulings []ruling) {
	inFlight = migration.InFlight(t.snapshot)
	for _, rq := range t.quotas {
		r := ruling{quota: rq, static: t.static[rq.Name], migrations: quota.Under(rq, inFlight)}
		r.decision = policy.Decide(r.static, r.migrations, rq.Status.Used)
		rulings = append(rulings, r)
	}
	return inFlight, rulings
}

// claim returns what the migration uid charges twice under this quota, cut down to
// what the quota limits. Nil: the quota does not see it.
func (r ruling) claim(uid types.UID) corev1.ResourceList {
	i := slices.IndexFunc(r.migrations, func(m quota.Migration) bool { return m.UID == uid })
	if i < 0 {
		return nil
	}
	claim := corev1.ResourceList{}
	for name, q := range r.migrations[i].Surge {
		if _, limited := r.static[name]; limited && q.Sign() > 0 {
			claim[name] = q
		}
	}
	return claim
}

func (r ruling) granted(uid types.UID) bool { return slices.Contains(r.decision.Granted, uid) }

// deferral is that of uid; nil if it was not deferred.
func (r ruling) deferral(uid types.UID) *quota.Deferral {
	for i := range r.decision.Deferred {
		if r.decision.Deferred[i].UID == uid {
			return &r.decision.Deferred[i]
		}
	}
	return nil
}

// lacking returns the resources of names of which limits have less than the granted
// migrations need.
func (r ruling) lacking(names, limits corev1.ResourceList) []corev1.ResourceName {
	return slices.DeleteFunc(sortedNames(names), func(name corev1.ResourceName) bool {
		limit, ok := limits[name]
		return !ok || limit.Cmp(r.needed(name)) >= 0
	})
}

// needed is what will be used when the granted migrations hold all of their surge.
func (r ruling) needed(name corev1.ResourceName) resource.Quantity {
	sum := r.quota.Status.Used[name].DeepCopy()
	for _, m := range r.migrations {
		if r.granted(m.UID) {
			sum.Add(m.Surge[name])
			sum.Sub(held(m)[name])
		}
	}
	return sum
}

// diverging returns the resources whose spec.hard is lower, and those whose
// spec.hard is higher than the decision wants.
func (r ruling) diverging() (low, high []corev1.ResourceName) {
	for _, name := range sortedNames(r.decision.Hard) {
		hard, ok := r.quota.Spec.Hard[name]
		switch c := hard.Cmp(r.decision.Hard[name]); {
		case !ok || c < 0:
			low = append(low, name)
		case c > 0:
			high = append(high, name)
		}
	}
	return low, high
}
