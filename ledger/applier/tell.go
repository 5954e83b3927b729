package applier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// takenPause is how long usage must stand before an event says that it was taken: until
// then it may be a target pod that the caches do not show yet.
const takenPause = time.Second

// sentences say what a migration waits for, by reason. {missing} stands for the amounts of
// the deferral, {quota} and {node} for RefusedBy and Node of the migration.
var sentences = map[quota.DeferralReason]string{
	Disabled:                 "headroom is switched off for this quota",
	RefusedElsewhere:         "{quota} has refused it, which is no ResourceQuota of this namespace",
	GrowthAboveStatic:        "its guest grows by more than the quota has left, {missing} is missing",
	quota.BudgetExceeded:     "it needs more than the whole budget, {missing} is missing",
	quota.BudgetUsed:         "the budget is used up, {missing} is missing",
	quota.RegularAboveStatic: "other workloads use more than the static limit, by {missing}",
	WriteRefused:             "the API server refuses to raise the limits of this quota",
	ParallelInCluster:        "KubeVirt runs as many migrations in the cluster as it may at the same time",
	ParallelFromNode:         "KubeVirt runs as many migrations from node {node} as it may at the same time",
	Outranked:                "KubeVirt starts migrations of higher priority first",
	Behind:                   "another migration of the same virtual machine is before it",
	InTurn:                   "room is made for other migrations first",
	OfferLapsed:              "there was room for its target pod, KubeVirt did not create it, and room is made again soon",
	Unsettled:                "usage has just risen above the static limit, and room is made as soon as it stands still",
}

// Sentence says what m waits for, which a QuotaResult has as deferred or queued. It has no
// full stop. Of a reason that is not known it is the reason itself.
func Sentence(d quota.Deferral, m quota.Migration) string {
	sentence, known := sentences[d.Reason]
	if !known {
		return string(d.Reason)
	}
	return strings.NewReplacer("{missing}", text(d.Missing), "{quota}", m.RefusedBy, "{node}", m.Node).Replace(sentence)
}

// text is list for people, without what is zero.
func text(list corev1.ResourceList) string { return amounts.Text(positive(list), ", ") }

// event records an event on rq; the package comment says what the reasons mean.
func (a *Applier) event(rq *corev1.ResourceQuota, kind, reason, format string, args ...any) {
	if a.config.Recorder != nil {
		a.config.Recorder.Eventf(rq, kind, reason, format, args...)
	}
}

// tell records what has changed in who waits and in what was taken. It returns when to call
// it again.
func (a *Applier) tell(ctx context.Context, v *view) time.Duration {
	a.tellDeferred(v)
	taken, told := v.memory.baseline.taken, v.memory.taken
	if exceeds(taken, told) {
		v.memory.takenAt = sinceWhen(v.memory.takenAt, v.now, true)
		if wait := v.memory.takenAt.Add(takenPause).Sub(v.now); wait > 0 {
			return wait
		}
		klog.FromContext(ctx).Info("Regular workloads have taken room of live migrations", "resourceQuota", klog.KObj(v.rq), "amount", text(taken))
		a.event(v.rq, corev1.EventTypeWarning, "HeadroomTaken",
			"Regular workloads have taken room that was open for live migrations: %s above the static limits.", text(taken))
		if a.config.Metrics != nil {
			a.config.Metrics.Taken(v.rq.Namespace, v.rq.Name, positive(each(taken, told, minus)))
		}
	}
	v.memory.taken, v.memory.takenAt = taken, time.Time{}
	return 0
}

// tellDeferred records who waits, and why, when that changes.
func (a *Applier) tellDeferred(v *view) {
	var parts, key []string
	for _, d := range v.deferred {
		for _, m := range v.migrations {
			if m.UID == d.UID && d.Reason != WriteRefused { // that has an event of its own
				parts = append(parts, fmt.Sprintf("of %s: %s", m.VMI, Sentence(d, m)))
				key = append(key, string(d.UID)+" "+string(d.Reason))
			}
		}
	}
	slices.Sort(key)
	waiting := strings.Join(key, "; ")
	if waiting != "" && waiting != v.memory.deferred {
		a.event(v.rq, corev1.EventTypeNormal, "HeadroomDeferred", "Live migrations wait for room: %s.", strings.Join(parts, "; "))
	}
	v.memory.deferred = waiting
}

func (a *Applier) tellWrote(ctx context.Context, p plan) {
	klog.FromContext(ctx).Info("Wrote enforced limits", "resourceQuota", klog.KObj(p.next),
		"action", p.Action, "why", p.Why, "hard", text(p.next.Status.Hard))
	if a.config.Metrics != nil {
		a.config.Metrics.Wrote(p.next.Namespace, p.next.Name, p.Action)
	}
}

// tellRefused records that a write was refused; in an event only the first time.
func (a *Applier) tellRefused(ctx context.Context, v *view, err error) {
	if v.memory.refusals.count == 1 {
		klog.FromContext(ctx).Error(err, "Cannot write enforced limits", "resourceQuota", klog.KObj(v.rq))
		a.event(v.rq, corev1.EventTypeWarning, "HeadroomRefused", "The enforced limits cannot be raised for live migrations: %v", err)
	}
	if a.config.Metrics != nil {
		a.config.Metrics.Refused(v.rq.Namespace, v.rq.Name)
	}
}
