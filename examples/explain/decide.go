package main

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A ruling is what an applier would do about one quota, with what went into it.
type ruling struct {
	quota      *corev1.ResourceQuota
	migrations []quota.Migration // as the quota sees them
	decision   quota.Decision
	effective  corev1.ResourceList // what status.hard must be
	why        string
}

// decide asks the applier's planner about every quota of t, and what its migrations wait for.
func decide(t tenant, policy quota.Policy) (inFlight []quota.Migration, rulings []ruling, waits []migration.Wait) {
	inFlight = migration.InFlight(t.snapshot)
	config := applier.Config{Policy: func(string) quota.Policy { return policy }}
	planned := map[string]applier.QuotaResult{}
	results := applier.Plan(config, t.quotas, inFlight)
	for _, result := range results {
		planned[result.Name] = result
	}
	for _, rq := range t.quotas {
		r := ruling{quota: rq, migrations: quota.Under(rq, inFlight)}
		if result, ok := planned[rq.Name]; ok {
			r.decision, r.effective, r.why = result.Decision, result.Effective, result.Why
		} else { // no migration charges anything that it limits
			r.decision = policy.Decide(r.quota.Spec.Hard, nil, rq.Status.Used)
			r.effective, r.why = r.quota.Spec.Hard, "no migration needs room in it"
		}
		rulings = append(rulings, r)
	}
	return inFlight, rulings, migration.Waiting(t.snapshot, inFlight, results)
}

// claim returns what the migration uid charges twice under this quota, cut down to
// what the quota limits. Nil: the quota does not see it.
func (r ruling) claim(uid types.UID) corev1.ResourceList {
	m := r.migration(uid)
	if m == nil {
		return nil
	}
	claim := corev1.ResourceList{}
	for name, q := range m.Surge {
		if _, limited := r.quota.Spec.Hard[name]; limited && q.Sign() > 0 {
			claim[name] = q
		}
	}
	return claim
}

// migration returns that of uid as the quota sees it; nil if it does not.
func (r ruling) migration(uid types.UID) *quota.Migration {
	i := slices.IndexFunc(r.migrations, func(m quota.Migration) bool { return m.UID == uid })
	if i < 0 {
		return nil
	}
	return &r.migrations[i]
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

// lacking returns the resources of which limits have no room for the target pod of uid,
// after what those ahead of it need.
func (r ruling) lacking(uid types.UID, limits, ahead corev1.ResourceList) []corev1.ResourceName {
	m := r.migration(uid)
	if m == nil {
		return nil
	}
	var names []corev1.ResourceName
	for _, name := range sortedNames(limits) {
		need := m.Surge[name].DeepCopy()
		need.Add(m.Growth[name])
		wanted := r.quota.Status.Used[name].DeepCopy()
		wanted.Add(ahead[name])
		wanted.Add(need)
		if limit := limits[name]; need.Sign() > 0 && wanted.Cmp(limit) > 0 {
			names = append(names, name)
		}
	}
	return names
}
