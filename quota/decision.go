package quota

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// A Decision is what a [Policy] makes of one quota. Its lists have the keys of the
// static limits, in their formats. The zero Decision limits nothing.
type Decision struct {
	// Hard are the effective limits, for status.hard.
	Hard corev1.ResourceList
	// Regular is the part of used that no migration holds, never negative.
	Regular corev1.ResourceList
	// Temporary is the surge that migrations hold. It is more than used where
	// status.used lags behind the pods.
	Temporary corev1.ResourceList
	// Available is what regular workloads may still take: static less Regular,
	// never negative.
	Available corev1.ResourceList
	// Surge is what the granted migrations charge twice in all.
	Surge corev1.ResourceList
	// Need is the part of Surge that used does not contain yet: what the target pods of the
	// granted migrations will still be charged for.
	Need corev1.ResourceList
	// Granted are the UIDs of the migrations whose surge is in Hard, sorted.
	Granted []types.UID
	// Deferred are those that asked for headroom and got none, the next to be
	// granted first.
	Deferred []Deferral
}

// A Deferral is a migration that asked for headroom and was not granted it.
type Deferral struct {
	UID types.UID
	// Reason says what it waits for.
	Reason DeferralReason
	// Missing is, by resource, how much is in the way; resources on which nothing
	// is are absent. What it measures depends on Reason.
	Missing corev1.ResourceList
}

// DeferralReason says what a deferred migration waits for.
type DeferralReason string

const (
	// BudgetExceeded says that its surge alone is greater than the budget. Missing is its
	// surge less the whole budget.
	BudgetExceeded DeferralReason = "BudgetExceeded"
	// BudgetUsed says that the budget is used up by the charged migrations and those before
	// it. Missing is how much larger the budget would have to be to let it in, and all those
	// that wait before it.
	BudgetUsed DeferralReason = "BudgetUsed"
	// RegularAboveStatic says that regular usage is above the static limit, and that
	// Policy.Strict or Policy.Lift does not let it lift the limit that far, so quota would
	// refuse its target pod all the same. Missing is the usage that does not lift it.
	RegularAboveStatic DeferralReason = "RegularAboveStatic"
)

func (p Policy) decision(static corev1.ResourceList, t tally, granted []types.UID, deferred []Deferral) Decision {
	d := Decision{
		Hard:      p.hard(static, t),
		Regular:   make(corev1.ResourceList, len(t)),
		Temporary: make(corev1.ResourceList, len(t)),
		Available: make(corev1.ResourceList, len(t)),
		Surge:     make(corev1.ResourceList, len(t)),
		Need:      make(corev1.ResourceList, len(t)),
		Granted:   granted,
		Deferred:  deferred,
	}
	for i := range t {
		l := &t[i]
		regular := l.regular()
		d.Regular[l.name] = regular.in(l.format)
		d.Temporary[l.name] = l.temporary().in(l.format)
		d.Surge[l.name] = l.surge().in(l.format)
		d.Need[l.name] = l.surge().minus(l.temporary()).in(l.format)
		d.Available[l.name] = l.static.minus(regular).in(l.format)
	}
	return d
}

// Fits returns nil if regular workloads may take request, in ResourceQuota names, on top of
// what they use, and an *ExceededError otherwise. It is for admission webhooks, which must not
// let a workload take the room that is there for a migration. A resource without a limit always
// fits, and so does a request of zero or less. Of several resources that do not fit, the error
// names the first in the order of names.
func (d Decision) Fits(request corev1.ResourceList) error {
	for _, name := range slices.Sorted(maps.Keys(request)) {
		available, limited := d.Available[name]
		wanted := amountOf(request[name])
		if limited && !wanted.isZero() && wanted.cmp(amountOf(available)) > 0 {
			return &ExceededError{Resource: name, Requested: request[name].DeepCopy(), Available: available.DeepCopy()}
		}
	}
	return nil
}

// An ExceededError is a request of regular workloads for more than is available.
type ExceededError struct {
	Resource  corev1.ResourceName // in ResourceQuota names
	Requested resource.Quantity
	Available resource.Quantity // what static leaves; migrations' headroom is not in it
}

func (e *ExceededError) Error() string {
	requested, available := e.Requested, e.Available // String caches in its receiver
	return fmt.Sprintf("exceeded quota: %s: requested %s, available %s", e.Resource, requested.String(), available.String())
}
