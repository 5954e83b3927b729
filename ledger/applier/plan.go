package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A plan is what there is to do about a quota.
type plan struct {
	decision quota.Decision
	next     *corev1.ResourceQuota // what to write; nil: nothing
	action   Action
	paused   bool          // the raise waits, because it was reset
	again    time.Duration // when to look again
	reset    bool          // somebody has reset the raise, since last time
	taken    corev1.ResourceList
}

// plan works out what to do. It takes notice, in the memory, of what it sees.
func (v *view) plan(pause func(n int) time.Duration) plan {
	p := plan{action: Unchanged, decision: v.decide(v.rq.Status.Used)}
	if v.raise == nil {
		v.memory.settling = nil
	}
	target := v.target(&p)
	guard := v.guard(p.decision.Temporary)
	reset := v.reset()
	if reset {
		p.reset = v.memory.resets.see(v.now, pause)
	} else {
		v.memory.resets.undone = false
	}
	switch {
	case quota.Equal(target, v.static):
		if v.raise != nil {
			p.action, p.next = Restored, WithLimits(v.rq, v.static, v.static)
		}
	case v.raise != nil && v.raise.says(v.static, target) && quota.Equal(v.rq.Spec.Hard, target) && v.rq.Annotations[GuardAnnotation] == guard:
	case reset && v.now.Before(v.memory.resets.until):
		p.paused = true
		p.again = sooner(p.again, v.memory.resets.until.Sub(v.now))
	default:
		p.action, p.next = change(v.rq.Spec.Hard, target), withGuard(WithLimits(v.rq, v.static, target), guard)
	}
	for _, d := range v.deferred {
		if d.Reason == GlobalBudgetUsed {
			p.again = sooner(p.again, poolRetry)
		}
	}
	p.decision.Deferred = v.deferred
	return p
}

// target returns what spec.hard must be.
func (v *view) target(p *plan) corev1.ResourceList {
	c := v.claimed(p.decision)
	target := v.static
	switch {
	case none(c.surge):
	case v.suffices(p.decision, c):
		p.again = v.memory.doubtAgain(v.now)
		return v.static
	default:
		target = v.effective(p, c)
	}
	live := v.rq.Spec.Hard
	if v.partial {
		target = each(target, live, most) // somebody unseen may need it
	}
	if v.off {
		target = each(v.static, each(target, live, least), most) // never up, also not after a reset
	}
	return target
}

// effective returns the effective limits. While it is not settled whose usage that is
// which came to be above static, they are somewhere between two decisions: one that
// takes it for target pods which the ledger does not know of yet, and one that takes it
// for regular. Then they are left as they are if they are between these two.
func (v *view) effective(p *plan, c claim) corev1.ResourceList {
	unsettled, taken := v.memory.settling.look(v.static, p.decision.Regular, v.now)
	p.taken, p.again = taken, v.memory.settling.again(v.now)
	if unsettled == nil {
		return p.decision.Hard
	}
	pods := each(unsettled, c.need, least)
	lower := v.decide(each(v.rq.Status.Used, pods, minus)).Hard
	return each(p.decision.Hard, each(lower, v.rq.Spec.Hard, most), least)
}

// reset reports whether somebody has undone the raise, all of it or a part: the limits
// are not those that were applied, but no other than the static ones came in their place.
func (v *view) reset() bool {
	return v.raise != nil && quota.Equal(v.static, v.raise.static) && !quota.Equal(v.rq.Spec.Hard, v.raise.applied)
}

// says reports whether the annotations are right.
func (r *raise) says(static, applied corev1.ResourceList) bool {
	return quota.Equal(r.static, static) && quota.Equal(r.applied, applied)
}

// change returns what it is to replace the limits from by to.
func change(from, to corev1.ResourceList) Action {
	switch {
	case exceeds(to, from):
		return Raised
	case exceeds(from, to):
		return Lowered
	default:
		return Recorded
	}
}
