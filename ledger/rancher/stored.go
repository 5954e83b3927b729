package rancher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// Stored returns what is to be written for rq, whose spec.hard are the static limits as
// their owner wants them: spec.hard becomes what the rule makes of them, the migrations in
// flight and status.used, and the annotations say what the static limits are. All else is
// as in rq, the resourceVersion included. It is the same for a create and an update.
//
// The result is rq itself if there is nothing to change: nothing is granted, and rq has no
// annotations of a raise. Otherwise it is a copy; rq is never modified. Of nil it is nil.
//
// If the ledger cannot be read, the error is an [Error], and there is nothing to write. If
// a part of it cannot be read (ledger.ErrPartial), a raise is not lowered.
//
// While the shim is switched off the limits are written as they are in rq, and the
// annotations of a raise are taken away.
func (s *Shim) Stored(ctx context.Context, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if rq == nil {
		return nil, nil
	}
	static := rq.Spec.Hard
	hard := static
	if !s.Disabled() {
		inFlight, err := s.config.Ledger.Migrations(ctx, rq.Namespace)
		partial := errors.Is(err, ledger.ErrPartial)
		if err != nil && !partial {
			return nil, &Error{Namespace: rq.Namespace, Quota: rq.Name, Err: fmt.Errorf("read the ledger: %w", err)}
		}
		if s.config.Takeover && len(inFlight) == 0 && !isRaised(rq) {
			record, _ := ReadHarvester(rq) // what is malformed is told when it is adopted
			inFlight = record.InFlight()
		}
		hard = s.effective(rq, inFlight)
		if partial {
			hard = most(hard, carried(rq))
		}
	}
	if !isRaised(rq) && quota.Equal(hard, static) {
		return rq, nil
	}
	return applier.WithLimits(rq, static, hard), nil
}

// effective returns what the rule makes of rq, whose spec.hard are its static limits.
// Where nothing is granted these are the static ones, however much is used.
func (s *Shim) effective(rq *corev1.ResourceQuota, inFlight []quota.Migration) corev1.ResourceList {
	migrations := quota.Under(rq, inFlight)
	if rq.Annotations[applier.DisabledAnnotation] == "true" || HarvesterSkips(rq) {
		migrations = slices.DeleteFunc(migrations, func(m quota.Migration) bool { return m.State < quota.Charged })
	}
	if len(migrations) == 0 {
		return rq.Spec.Hard
	}
	policy := s.policy(rq.Namespace)
	decision := policy.Decide(rq.Spec.Hard, migrations, rq.Status.Used)
	for name, limit := range decision.Hard {
		floor := rq.Spec.Hard[name]
		if regular := decision.Regular[name]; !policy.Strict && regular.Cmp(floor) > 0 {
			floor = regular
		}
		if limit.Cmp(floor) > 0 {
			return decision.Hard
		}
	}
	return rq.Spec.Hard
}

// carried returns spec.hard of rq, raised by as much as its annotations say that it was.
func carried(rq *corev1.ResourceQuota) corev1.ResourceList {
	limits := rq.Spec.Hard.DeepCopy()
	if _, err := applier.Static(rq); err != nil || !isRaised(rq) {
		return limits
	}
	static, applied := annotated(rq, applier.StaticAnnotation), annotated(rq, applier.AppliedAnnotation)
	for name, limit := range limits {
		if before, after := static[name], applied[name]; after.Cmp(before) > 0 {
			after.Sub(before)
			limit.Add(after)
			limits[name] = limit
		}
	}
	return limits
}

// annotated reads an annotation that applier.Static has read without an error.
func annotated(rq *corev1.ResourceQuota, name string) corev1.ResourceList {
	var list corev1.ResourceList
	if err := json.Unmarshal([]byte(rq.Annotations[name]), &list); err != nil {
		return nil
	}
	return list
}

// most returns the greater of two limits for each resource of a.
func most(a, b corev1.ResourceList) corev1.ResourceList {
	limits := a.DeepCopy()
	for name, limit := range limits {
		if other := b[name]; other.Cmp(limit) > 0 {
			limits[name] = other.DeepCopy()
		}
	}
	return limits
}
