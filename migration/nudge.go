package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// NudgedAnnotation is what a [Controller] touches on a VMIM to wake KubeVirt: when it did so last.
const NudgedAnnotation = "headroom.vmquota.io/nudged"

const (
	firstNudge = 50 * time.Millisecond
	// firstTry is how long KubeVirt is given to try for the first time, which comes some tens
	// of milliseconds after the VMIM unless KubeVirt is busy.
	firstTry = 150 * time.Millisecond
	minPause = 100 * time.Millisecond
	maxPause = time.Minute
)

// A nudge is when to wake KubeVirt for the sake of a migration for which there is room.
type nudge struct {
	next  time.Time
	pause time.Duration // after next
}

// nudge wakes KubeVirt where it sleeps although there is room, and returns when to call it
// again, zero if only after the next change.
//
// When quota has refused a target pod, KubeVirt tries again as soon as it sees an update of the
// quota. That try can come before the API server's admission has seen the new status.hard, and
// then nothing wakes KubeVirt before its back-off ends, which may be 1000 seconds (seen in 3 of
// 250 raises of the real one). An update of the VMIM wakes it at once. So an annotation of the
// VMIM is touched 50 ms after the enforced limits have room for the refused target pod, 100 ms
// later, and then with pauses that double, up to a minute, until the pod is there or the
// migration is over: several times within the second that the applier keeps room open.
//
// A migration that was not refused, and for which room is open, is nudged likewise, for the
// first time after 150 ms: while KubeVirt creates one target pod it puts all others off for a
// second (handleTargetPodCreation in its pkg/virt-controller/watch/migration/migration.go).
//
// One that cannot be nudged does not keep the others from it, and one that is gone is no error.
func (c *Controller) nudge(ctx context.Context, past *history, r Report, s Snapshot) (again time.Duration, err error) {
	nudges := map[types.UID]nudge{}
	var errs []error
	for _, vmim := range admissible(s, r.InFlight, r.Quotas, r.Result.Offered()) {
		n, known := past.nudges[vmim.UID]
		switch {
		case !known && refused(vmim):
			n = nudge{next: s.Now.Add(firstNudge), pause: minPause}
		case !known:
			n = nudge{next: s.Now.Add(firstTry), pause: minPause}
		case !s.Now.Before(n.next):
			errs = append(errs, c.wake(ctx, vmim, s.Now))
			n = nudge{next: s.Now.Add(n.pause), pause: min(2*n.pause, maxPause)}
		}
		nudges[vmim.UID] = n
		again = sooner(again, n.next.Sub(s.Now))
	}
	past.nudges = nudges
	return again, errors.Join(errs...)
}

// wake touches the annotation of vmim.
func (c *Controller) wake(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration, now time.Time) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, NudgedAnnotation, now.UTC().Format(time.RFC3339Nano))
	err := c.options.Patch(ctx, vmim.Namespace, vmim.Name, []byte(patch))
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("nudge VirtualMachineInstanceMigration %s/%s: %w", vmim.Namespace, vmim.Name, err)
	}
	klog.FromContext(ctx).V(2).Info("Woke KubeVirt: the quota has room for a target pod that did not come",
		"virtualMachineInstanceMigration", klog.KObj(vmim))
	c.options.Recorder.Event(vmim, corev1.EventTypeNormal, "Nudged",
		"The quota has room for the target pod, and it did not come: KubeVirt was woken.")
	if c.options.Nudged != nil {
		c.options.Nudged(ctx, vmim)
	}
	return nil
}

// admissible returns the VMIMs whose target pod quota has refused, and would admit now, and
// those that have an offer and were not refused. The oldest is the first.
func admissible(
	s Snapshot, inFlight []quota.Migration, quotas []*corev1.ResourceQuota, offered map[types.UID]bool,
) []*kubevirtv1.VirtualMachineInstanceMigration {
	if len(inFlight) == 0 {
		return nil
	}
	var found []*kubevirtv1.VirtualMachineInstanceMigration
	for _, vmim := range s.Migrations {
		switch {
		case vmim == nil:
		case refused(vmim):
			m, ok := find(inFlight, vmim.UID)
			waits := m.State == quota.Blocked || m.Held != nil // its claim is there, its pod is not
			if ok && waits && admits(quotas, m) {
				found = append(found, vmim)
			}
		case offered[vmim.UID] && vmim.Status.Phase == kubevirtv1.MigrationPending:
			found = append(found, vmim)
		}
	}
	return oldestFirst(found)
}

// admits reports whether all quotas have room for what m does not hold yet, as the API
// server's quota admission would look at it: by status. They have not if it was refused by a
// quota that is none of them.
func admits(quotas []*corev1.ResourceQuota, m quota.Migration) bool {
	refuses := func(rq *corev1.ResourceQuota) bool { return rq.Name == m.RefusedBy }
	if m.RefusedBy != "" && !slices.ContainsFunc(quotas, refuses) {
		return false
	}
	for _, rq := range quotas {
		under := []quota.Migration{m}
		if len(rq.Spec.Scopes) > 0 || rq.Spec.ScopeSelector != nil {
			under = quota.Under(rq, under)
		}
		for _, seen := range under {
			for name, limit := range rq.Status.Hard {
				need := amounts.Minus(seen.Surge[name], seen.Held[name])
				if wanted := amounts.Plus(rq.Status.Used[name], need); need.Sign() > 0 && wanted.Cmp(limit) > 0 {
					return false
				}
			}
		}
	}
	return true
}
