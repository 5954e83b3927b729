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
)

// The reasons of the events; the package comment says what they mean.
const (
	eventRefused  = "HeadroomRefused"
	eventTaken    = "HeadroomTaken"
	eventDeferred = "HeadroomDeferred"
)

// takenPause is how long usage must stand before it is told as taken: until then it may be
// a target pod that the caches do not show yet.
const takenPause = time.Second

func (a *Applier) event(rq *corev1.ResourceQuota, kind, reason, format string, args ...any) {
	if a.config.Recorder != nil {
		a.config.Recorder.Eventf(rq, kind, reason, format, args...)
	}
}

// tell tells what has changed in who waits and in what was taken. It returns when to tell
// again.
func (a *Applier) tell(ctx context.Context, v *view) time.Duration {
	a.tellDeferred(v)
	taken, told := v.memory.baseline.taken, v.memory.taken
	if !exceeds(taken, told) {
		v.memory.taken, v.memory.takenAt = taken, time.Time{}
		return 0
	}
	if v.memory.takenAt.IsZero() {
		v.memory.takenAt = v.now
	}
	if wait := v.memory.takenAt.Add(takenPause).Sub(v.now); wait > 0 {
		return wait
	}
	v.memory.taken, v.memory.takenAt = taken, time.Time{}
	klog.FromContext(ctx).Info("Regular workloads have taken room of live migrations", "resourceQuota", klog.KObj(v.rq), "amount", text(taken))
	a.event(v.rq, corev1.EventTypeWarning, eventTaken,
		"Regular workloads have taken room that was open for live migrations: %s above the static limits.", text(taken))
	if a.config.Metrics != nil {
		a.config.Metrics.Taken(v.rq.Namespace, v.rq.Name, positive(each(taken, told, minus)))
	}
	return 0
}

// tellDeferred tells who waits, and why, when that changes.
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
		a.event(v.rq, corev1.EventTypeNormal, eventDeferred, "Live migrations wait for room: %s.", strings.Join(parts, "; "))
	}
	v.memory.deferred = waiting
}

// Sentence says what m waits for, which a QuotaResult has as deferred or queued. It has no
// full stop.
func Sentence(d quota.Deferral, m quota.Migration) string {
	missing := text(d.Missing)
	switch d.Reason {
	case Disabled:
		return "headroom is switched off for this quota"
	case RefusedElsewhere:
		return m.RefusedBy + " has refused it, which is no ResourceQuota of this namespace"
	case GrowthAboveStatic:
		return fmt.Sprintf("its guest grows by more than the quota has left, %s is missing", missing)
	case quota.BudgetExceeded:
		return fmt.Sprintf("it needs more than the whole budget, %s is missing", missing)
	case quota.BudgetUsed:
		return fmt.Sprintf("the budget is used up, %s is missing", missing)
	case quota.RegularAboveStatic:
		return fmt.Sprintf("other workloads use more than the static limit, by %s", missing)
	case WriteRefused:
		return "the API server refuses to raise the limits of this quota"
	case ParallelInCluster:
		return "KubeVirt runs as many migrations in the cluster as it may at the same time"
	case ParallelFromNode:
		return fmt.Sprintf("KubeVirt runs as many migrations from node %s as it may at the same time", m.Node)
	case Outranked:
		return "KubeVirt starts migrations of higher priority first"
	case Behind:
		return "another migration of the same virtual machine is before it"
	case InTurn:
		return "room is made for other migrations first"
	case OfferLapsed:
		return "there was room for its target pod, KubeVirt did not create it, and room is made again soon"
	case Unsettled:
		return "usage has just risen above the static limit, and room is made as soon as it stands still"
	default:
		return string(d.Reason)
	}
}

func (a *Applier) tellWrote(ctx context.Context, v *view, p plan) {
	klog.FromContext(ctx).Info("Wrote enforced limits", "resourceQuota", klog.KObj(v.rq), "action", p.action, "why", p.why, "hard", text(p.next.Status.Hard))
	if a.config.Metrics != nil {
		a.config.Metrics.Wrote(v.rq.Namespace, v.rq.Name, p.action)
	}
}

func (a *Applier) tellRefused(ctx context.Context, v *view, err error, first bool) {
	if first {
		klog.FromContext(ctx).Error(err, "Cannot write enforced limits", "resourceQuota", klog.KObj(v.rq))
		a.event(v.rq, corev1.EventTypeWarning, eventRefused, "The enforced limits cannot be raised for live migrations: %v", err)
	}
	if a.config.Metrics != nil {
		a.config.Metrics.Refused(v.rq.Namespace, v.rq.Name)
	}
}
