package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A Result is the outcome of one [Applier.Apply]. It shares no memory with the Applier.
type Result struct {
	// Quotas are those that migrations touch and those that are raised, sorted by
	// name. The others were left alone.
	Quotas []QuotaResult
	// RetryAfter is after what time to call Apply again, if nothing changes before; the
	// least of those of Quotas. Zero: only after the next change.
	RetryAfter time.Duration
}

// A QuotaResult is what became of one ResourceQuota.
type QuotaResult struct {
	Name string
	// Static are the limits that the tenant was given; nil if Err says that they cannot
	// be read.
	Static corev1.ResourceList
	// Hard is spec.hard as it is now.
	Hard corev1.ResourceList
	// Decision is what the rule makes of the quota. Its Hard is more than is written
	// where the granted migrations fit without a raise, and where usage is looked at
	// once more (see the package comment). Its Deferred are those whose target pod has
	// no room here; beside the reasons of package quota there are those of this one.
	// What was deferred because of another quota of the namespace is in neither list.
	Decision quota.Decision
	Action   Action
	Reached  Reached
	// Taken is regular usage that came to be above static while the quota was raised:
	// room that was there for migrations. Nil if there is none.
	Taken corev1.ResourceList
	// Resets is how often in a row somebody has reset a raise of this quota.
	Resets int
	// RetryAfter is as in Result.
	RetryAfter time.Duration
	// Err is why the quota is not as it should be: an [Error], or nil.
	Err error
}

// Action is what Apply has written to a quota.
type Action string

const (
	// Unchanged: nothing.
	Unchanged Action = "Unchanged"
	// Raised: higher limits, at least one.
	Raised Action = "Raised"
	// Lowered: lower limits, none of them below static.
	Lowered Action = "Lowered"
	// Restored: the static limits, and the annotations are gone.
	Restored Action = "Restored"
	// Recorded: the annotations only, because somebody has changed static limits, or
	// because of GuardAnnotation.
	Recorded Action = "Recorded"
)

// Reached is how far the effective limits have come.
type Reached string

const (
	// Pending: they are not in spec.hard; see RetryAfter and Err.
	Pending Reached = "Pending"
	// Written: they are in spec.hard, but not in status.hard.
	Written Reached = "Written"
	// Enforced: they are in status.hard, so that quota admission, and with it KubeVirt,
	// makes use of them, up to the lag of the API server's cache.
	Enforced Reached = "Enforced"
)

// Reasons of deferrals beside those of package quota.
const (
	// Disabled: a kill switch is on. Missing is nil.
	Disabled quota.DeferralReason = "Disabled"
	// GlobalBudgetExceeded and GlobalBudgetUsed are quota.BudgetExceeded and
	// quota.BudgetUsed for the budget over all namespaces.
	GlobalBudgetExceeded quota.DeferralReason = "GlobalBudgetExceeded"
	GlobalBudgetUsed     quota.DeferralReason = "GlobalBudgetUsed"
)

// sooner returns the lesser of two times to wait, of which zero is none at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
