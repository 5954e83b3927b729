package applier

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/internal/spelling"
	"github.com/vmquota/headroom/quota"
)

// This file answers why a quota is raised or not. It has no side effects: judge says which
// migrations get no room and why, decide applies the rule to the others, plan says what to
// write, and due says when.

const (
	// What only charged migrations need is written again putBackPause after the last recount
	// has reset it, because a pod that has ended may still be in the caches. It waits no longer
	// than putBackGap, and is written no more often, so that a busy namespace does not cost a
	// write for each pod that ends.
	putBackPause = 100 * time.Millisecond
	putBackGap   = time.Second
	// lowerPause is how long to wait for kube-controller-manager to take away, with the usage,
	// what charged migrations no longer need.
	lowerPause = 150 * time.Millisecond
)

// A history is what a plan remembers of those before. The zero history remembers nothing.
type history struct {
	granted map[types.UID]bool // whose surge was in status.hard
	offered map[types.UID]bool // those of them that had an offer

	low, high time.Time // since when status.hard is too low, or not too low but different; zero: it is not
	putBack   time.Time // when status.hard was last raised for charged migrations alone
	announced time.Time // when OfferAnnotation was written
	seen      time.Time // when the caches first showed it; zero: they do not yet
	recounts  recounts
}

// A plan is what there is to do about a quota, and why.
type plan struct {
	QuotaResult                       // if next is written
	next        *corev1.ResourceQuota // what to write; nil: nothing
	history     history               // if next is written, or nil
}

// forgivenUID is that of no migration.
const forgivenUID types.UID = "headroom.vmquota.io/forgiven"

// judge returns the waiting migrations that this quota is in the way of and that get no
// room in it: those that could get none now whoever else waits, and those that wait for the
// budget. Those in unwanted get none in another quota, and are left out. What has an open
// offer keeps it.
func (v *view) judge(unwanted map[types.UID]bool) (never, later []quota.Deferral) {
	if len(v.inTheWay) == 0 || v.unsettled() > 0 {
		return nil, nil
	}
	static, used := v.rq.Spec.Hard, v.rq.Status.Used
	counted := v.closed.Regular
	regular := v.memory.baseline.before(static, counted)
	candidates := make([]quota.Migration, 0, len(v.migrations)+1)
	for _, m := range v.migrations {
		missing := m.GrowthAboveStatic(static, regular)
		switch {
		case m.State >= quota.Charged:
			candidates = append(candidates, m)
		case !v.inTheWay[m.UID] || unwanted[m.UID]:
		case v.elsewhere[m.UID]:
			never = append(never, quota.Deferral{UID: m.UID, Reason: RefusedElsewhere})
		case v.off:
			never = append(never, quota.Deferral{UID: m.UID, Reason: Disabled})
		case v.refused > 0:
			never = append(never, quota.Deferral{UID: m.UID, Reason: WriteRefused})
		case v.memory.history.offered[m.UID]:
			candidates = append(candidates, offered(m))
		case missing != nil:
			never = append(never, quota.Deferral{UID: m.UID, Reason: GrowthAboveStatic, Missing: missing})
		case v.later[m.UID]: // it waits for something else
		default:
			candidates = append(candidates, m)
		}
	}
	policy := v.policy
	policy.Eager, policy.Lift = true, v.memory.baseline.lift(nil)
	// What was taken and is forgiven counts against the budget.
	candidates = append(candidates, quota.Migration{UID: forgivenUID, State: quota.Charged, Surge: v.forgiven()})
	for _, d := range policy.Decide(static, candidates, each(used, each(counted, regular, minus), minus)).Deferred {
		if d.Reason == quota.BudgetUsed {
			later = append(later, d)
		} else {
			never = append(never, d)
		}
	}
	return never, later
}

// unsettled returns for how long no offer is made here, because regular usage has just risen
// above static although there was no room for it.
func (v *view) unsettled() time.Duration {
	if len(v.inTheWay) == 0 {
		return 0
	}
	return max(v.memory.baseline.unsettled(v.now), 0)
}

func (v *view) forgiven() corev1.ResourceList {
	if v.policy.Strict {
		return nil
	}
	return v.memory.baseline.forgiven(v.waiting)
}

// decide applies the rule to the charged migrations and to those that are offered room.
func (v *view) decide(open map[types.UID]bool) quota.Decision {
	granted := slices.Clip(v.charged) // so that append copies it
	for _, m := range v.waiting {
		if open[m.UID] {
			granted = append(granted, offered(m))
		}
	}
	policy := v.policy
	switch {
	case len(granted) == 0: // there is nothing to make room for
		policy.Lift = v.rq.Spec.Hard
	case len(open) > 0:
		policy.Lift = v.memory.baseline.lift(v.forgiven())
	default:
		policy.Lift = v.memory.baseline.lift(nil)
	}
	d := policy.Decide(v.rq.Spec.Hard, granted, v.rq.Status.Used)
	v.hold(&d)
	return d
}

// offered returns m as one that is granted and holds nothing.
func offered(m quota.Migration) quota.Migration {
	m.State, m.Held = quota.Charged, corev1.ResourceList{}
	return m
}

// open returns the migrations that this quota has to make room for, and whether any target
// pod may come now.
func (v *view) open() (offers map[types.UID]bool, expected bool) {
	for _, m := range v.waiting {
		if !v.standing.open(m.UID) {
			continue
		}
		expected = true
		if v.inTheWay[m.UID] {
			offers = with(offers, m.UID)
		}
	}
	return offers, expected
}

// plan says what to do.
func (v *view) plan() plan {
	offers, expected := v.open()
	p := plan{QuotaResult: QuotaResult{Decision: v.closed, Effective: v.rq.Status.Hard, Action: Unchanged}}
	if len(offers) > 0 {
		p.Decision = v.decide(offers)
	}
	switch {
	case v.off:
		p.Why = "a kill switch is on: hands off"
		return p
	case len(v.rq.Status.Hard) == 0 && len(v.rq.Spec.Hard) > 0:
		p.Why = "kube-controller-manager has not counted the quota yet"
		return p
	}
	p.history = v.memory.history
	p.history.recounts = v.recounts
	p.Effective = v.target(p.Decision)
	p.history.offered = nil
	for uid := range v.memory.history.offered { // until it is closed, or its pod is charged
		if !slices.Contains(p.Decision.Granted, uid) || offers[uid] {
			p.history.offered = with(p.history.offered, uid)
		}
	}
	tooLow := exceeds(p.Effective, v.rq.Status.Hard)
	announce := v.guard && len(offers) > 0
	if lead := v.lead(); announce && tooLow && lead > 0 {
		return v.announce(p, lead)
	}
	announced := announce == isAnnotated(v.rq)
	if !announced || !quota.Equal(p.Effective, v.rq.Status.Hard) {
		due, why := v.due(p, offers, tooLow, !announced && (announce || v.isGuarded() || !tooLow) || tooLow && expected)
		if wait := due.Sub(v.now); wait > 0 {
			p.history.low, p.history.high = sinceWhen(p.history.low, v.now, tooLow), sinceWhen(p.history.high, v.now, !tooLow)
			p.RequeueAfter, p.Why = wait, why
			return p
		}
		p.next, p.Action = v.write(p.Effective, announce), change(v.rq, p.Effective)
		p.history.recounts.enforced = p.Effective
		if p.Action == Raised && len(offers) == 0 && v.held == 0 {
			p.history.putBack = v.now
		}
	}
	p.RequeueAfter = v.held
	p.Why = v.whyEnforced(len(offers), len(p.Decision.Granted)-len(offers))
	p.history.low, p.history.high = time.Time{}, time.Time{}
	p.history.offered, p.history.granted = offers, nil
	for _, uid := range p.Decision.Granted {
		p.history.granted = with(p.history.granted, uid)
	}
	return p
}

// target returns what status.hard has to be. Only kube-controller-manager adds resources to
// it, together with their usage.
func (v *view) target(d quota.Decision) corev1.ResourceList {
	target := make(corev1.ResourceList, len(d.Hard))
	isFull := positive(d.Need) == nil
	for name, hard := range v.counted(d.Hard) {
		live := v.rq.Status.Hard[name]
		if isFull { // a lift makes no room, so it is not worth a write
			hard = least(hard, most(live, plus(v.rq.Spec.Hard[name], d.Surge[name])))
		}
		if v.partial { // a migration that cannot be read may need it
			hard = most(hard, live)
		}
		target[name] = spelling.Exact(hard)
	}
	return target
}

// due returns when to write p.Effective, and what is waited for until then. At once is written
// what is urgent, what a pod that has come is charged for, and whatever closes an offer.
func (v *view) due(p plan, offers map[types.UID]bool, tooLow, urgent bool) (due time.Time, why string) {
	before := v.memory.history
	closed, newly := false, false
	for uid := range before.offered {
		closed = closed || !offers[uid] && !slices.Contains(p.Decision.Granted, uid)
	}
	for _, uid := range p.Decision.Granted {
		newly = newly || !before.granted[uid]
	}
	switch {
	case urgent, closed && !tooLow, newly && !v.now.Before(p.history.recounts.at.Add(putBackPause)):
		return v.now, ""
	case tooLow:
		since := sinceWhen(before.low, v.now, true)
		due = latest(since, p.history.recounts.at).Add(putBackPause)
		if last := since.Add(putBackGap); last.Before(due) {
			due = last
		}
		return latest(due, before.putBack.Add(putBackGap)), "a recount by kube-controller-manager has reset the limit; it is about to be written again"
	default:
		return sinceWhen(before.high, v.now, true).Add(lowerPause), "kube-controller-manager is about to lower the limit with the usage"
	}
}

func latest(a, b time.Time) time.Time { return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare) }

// sinceWhen returns since when something is so: since before if that is known.
func sinceWhen(before, now time.Time, is bool) time.Time {
	switch {
	case !is:
		return time.Time{}
	case before.IsZero():
		return now
	default:
		return before
	}
}

// write returns a copy of the quota, for its status subresource, with these enforced limits.
func (v *view) write(hard corev1.ResourceList, announce bool) *corev1.ResourceQuota {
	next := v.rq.DeepCopy()
	next.Status.Hard = hard
	delete(next.Annotations, OfferAnnotation)
	if announce {
		next.Annotations = set(next.Annotations, OfferAnnotation, "open")
	}
	return next
}

// change returns what it is to write hard to the status of rq.
func change(rq *corev1.ResourceQuota, hard corev1.ResourceList) Action {
	switch {
	case exceeds(hard, rq.Status.Hard):
		return Raised
	case quota.Equal(hard, rq.Status.Hard):
		return Announced
	case quota.Equal(hard, rq.Spec.Hard):
		return Restored
	default:
		return Lowered
	}
}

// whyEnforced says why status.hard is what it is, or is about to be.
func (v *view) whyEnforced(offers, charged int) string {
	onTop := count(charged, "migration is charged on top of the static limits", "migrations are charged on top of the static limits")
	room := "room is open for " + count(offers, "target pod", "target pods")
	switch {
	case offers > 0 && charged > 0:
		return room + ", and " + onTop
	case offers > 0:
		return room
	case v.unsettled() > 0:
		return "regular usage has just risen above static: no offer before it has settled"
	case charged > 0:
		return onTop
	case len(v.migrations) > 0:
		return "no migration needs room now"
	default:
		return "no migration is in flight"
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// result completes the plan for the caller.
func (p plan) result(v *view) QuotaResult {
	r := p.QuotaResult
	r.Name, r.Static, r.Hard = v.rq.Name, v.rq.Spec.Hard.DeepCopy(), v.rq.Status.Hard.DeepCopy()
	r.Effective, r.Taken = p.Effective.DeepCopy(), v.memory.baseline.taken.DeepCopy()
	r.Offered = slices.Sorted(maps.Keys(p.history.offered))
	r.RequeueAfter = sooner(p.RequeueAfter, v.unsettled())
	r.Decision.Deferred, r.Queued = v.deferred, v.queued()
	return r
}

// Plan says what an [Applier] with this Config and without a history would do about the
// quotas of one namespace if these migrations were in flight there and nowhere else. It
// writes nothing. The Action of a result is the first write; its Hard is status.hard as it
// is, and its Effective what status.hard would be made. Of the Config it uses Policy,
// Disabled, DisabledFor, Parallel, Guard and Now, which may all be missing.
func Plan(config Config, quotas []*corev1.ResourceQuota, inFlight []quota.Migration) []QuotaResult {
	if len(quotas) == 0 {
		return nil
	}
	if config.Now == nil {
		config.Now = func() time.Time { return time.Unix(0, 0) }
	}
	if config.Parallel.Open == 0 {
		config.Parallel.Open = math.MaxInt // what comes a moment later is not left out
	}
	namespace := quotas[0].Namespace
	s := config.setting(namespace, quotas, quota.Sorted(inFlight))
	views, _, _ := newOffers(config.Parallel).views(namespace, s, byName(quotas), memories{})
	var results []QuotaResult
	for _, v := range views {
		results = append(results, v.plan().result(v))
	}
	return results
}
