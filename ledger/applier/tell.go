package applier

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// The reasons of the events; the package comment says what they mean.
const (
	eventRefused    = "HeadroomRefused"
	eventReset      = "HeadroomReset"
	eventTaken      = "HeadroomTaken"
	eventDeferred   = "HeadroomDeferred"
	eventUnreadable = "HeadroomUnreadable"
)

func (a *Applier) event(rq *corev1.ResourceQuota, kind, reason, format string, args ...any) {
	if a.config.Recorder != nil {
		a.config.Recorder.Eventf(rq, kind, reason, format, args...)
	}
}

// tell tells what a plan has found out.
func (a *Applier) tell(ctx context.Context, v *view, p plan) {
	if p.reset {
		klog.FromContext(ctx).Info("Somebody has reset a raise", "resourceQuota", klog.KObj(v.rq), "inARow", v.memory.resets.count)
		a.event(v.rq, corev1.EventTypeWarning, eventReset,
			"Somebody has reset the limits that were raised for live migrations (%d times in a row).", v.memory.resets.count)
		if a.config.Metrics != nil {
			a.config.Metrics.Reset(v.rq.Namespace, v.rq.Name)
		}
	}
	if p.taken != nil {
		klog.FromContext(ctx).Info("Regular workloads have taken room of live migrations", "resourceQuota", klog.KObj(v.rq), "amount", text(p.taken))
		a.event(v.rq, corev1.EventTypeWarning, eventTaken,
			"Regular workloads have taken room that was there for live migrations: %s above the static limits.", text(p.taken))
		if a.config.Metrics != nil {
			a.config.Metrics.Taken(v.rq.Namespace, v.rq.Name, p.taken)
		}
	}
	a.tellDeferred(v)
}

// tellDeferred tells who waits, and why, when that changes.
func (a *Applier) tellDeferred(v *view) {
	if a.config.Recorder == nil {
		return
	}
	var parts []string
	for _, d := range v.deferred {
		for _, m := range v.inFlight {
			if m.UID == d.UID {
				parts = append(parts, fmt.Sprintf("%s (%s): %s", m.UID, m.VMI, d.Reason))
			}
		}
	}
	waiting := strings.Join(parts, ", ")
	if waiting != "" && waiting != v.memory.deferred {
		a.event(v.rq, corev1.EventTypeNormal, eventDeferred, "Live migrations wait for room: %s.", waiting)
	}
	v.memory.deferred = waiting
}

func (a *Applier) tellWrote(ctx context.Context, v *view, p plan) {
	klog.FromContext(ctx).V(2).Info("Wrote limits", "resourceQuota", klog.KObj(v.rq), "action", p.action, "hard", text(p.next.Spec.Hard))
	if a.config.Metrics != nil {
		a.config.Metrics.Wrote(v.rq.Namespace, v.rq.Name, p.action)
	}
}

func (a *Applier) tellRefused(ctx context.Context, v *view, err error, first bool) {
	if first {
		klog.FromContext(ctx).Error(err, "Cannot change limits for live migrations", "resourceQuota", klog.KObj(v.rq))
		a.event(v.rq, corev1.EventTypeWarning, eventRefused, "The limits cannot be changed for live migrations: %v", err)
	}
	if a.config.Metrics != nil {
		a.config.Metrics.Refused(v.rq.Namespace, v.rq.Name)
	}
}

// unreadable returns the outcome for a quota of which the static limits are not known. It
// is told once for each content of the annotations.
func (a *Applier) unreadable(ctx context.Context, rq *corev1.ResourceQuota, m *memory, err error) QuotaResult {
	is := rq.Annotations[StaticAnnotation] + "\n" + rq.Annotations[AppliedAnnotation]
	if m.unreadable != is {
		klog.FromContext(ctx).Error(err, "Left limits alone", "resourceQuota", klog.KObj(rq))
		a.event(rq, corev1.EventTypeWarning, eventUnreadable, "The limits are left alone: %v", err)
	}
	m.unreadable = is
	return QuotaResult{Name: rq.Name, Hard: rq.Spec.Hard.DeepCopy(), Action: Unchanged, Reached: Pending, Err: err}
}
