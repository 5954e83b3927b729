package applier

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// admit settles which migrations get no headroom, and tells it to the views. A target
// pod has to pass all quotas that see it, so one that lacks room in any of them is
// granted in none: it would open room that it cannot use.
func (a *Applier) admit(namespace string, s setting, views []*view) {
	unwanted := map[types.UID]bool{}
	// Those that could never be granted first, because they hold nobody back. Then
	// those that wait for the budget of the namespace.
	for _, waiting := range []bool{false, true} {
		var refused []types.UID
		for _, v := range views {
			refused = append(refused, v.defers(waiting, unwanted)...)
		}
		for _, uid := range refused {
			unwanted[uid] = true
		}
	}
	for _, v := range views {
		v.unwanted = unwanted
		v.watch() // before the global budget, which would end it
	}
	a.admitToPool(namespace, s, views, unwanted)
}

// admitToPool asks the global budget for all that is left, and adds to unwanted what it
// does not grant.
func (a *Applier) admitToPool(namespace string, s setting, views []*view, unwanted map[types.UID]bool) {
	if len(a.pool.budget) == 0 {
		return
	}
	granted := make([][]types.UID, len(views)) // by those views that would raise limits
	for i, v := range views {
		d := v.decide(v.rq.Status.Used)
		if v.needsRaise(d) && !v.memory.refusals.holds(s.now) {
			granted[i] = d.Granted
		}
	}
	var wanted []quota.Migration
	for _, m := range s.inFlight {
		if slices.ContainsFunc(granted, func(uids []types.UID) bool { return contains(uids, m.UID) }) {
			wanted = append(wanted, m)
		}
	}
	deferred := a.pool.ask(namespace, wanted, s.now)
	for _, deferral := range deferred {
		unwanted[deferral.UID] = true
	}
	for i, v := range views {
		here := slices.DeleteFunc(slices.Clone(deferred), func(d quota.Deferral) bool { return !contains(granted[i], d.UID) })
		v.deferred = append(v.deferred, v.without(v.decide(v.rq.Status.Used), here)...)
	}
}

func contains(sorted []types.UID, uid types.UID) bool {
	_, found := slices.BinarySearch(sorted, uid)
	return found
}
