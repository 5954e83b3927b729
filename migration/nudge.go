package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// NudgedAnnotation is what a nudger touches on a VMIM: when it did so last.
const NudgedAnnotation = "headroom.vmquota.io/nudged"

const (
	firstNudge = 50 * time.Millisecond
	// firstTry is how long KubeVirt is given to try for the first time, which comes some tens
	// of milliseconds after the VMIM unless KubeVirt is busy.
	firstTry = 150 * time.Millisecond
	minPause = 100 * time.Millisecond
	maxPause = time.Minute
)

// A nudger wakes KubeVirt where it sleeps although there is room.
//
// When quota has refused a target pod, KubeVirt tries again as soon as it sees any
// update of the quota. That try can lose a race: it comes before the API server's
// admission has seen the new status.hard, is refused, and nothing else wakes KubeVirt
// before its back-off ends, which may be 1000 seconds (seen in 3 of 250 raises of the
// real one). An update of the VMIM wakes it at once. So: once the limits that are
// enforced (status.hard) have room for a refused target pod and it still does not come,
// the nudger touches an annotation of the VMIM, after 50 ms, 100 ms later, and then with
// pauses that double, up to a minute, until the pod is there or the migration is over. So
// several nudges come within the second that the applier keeps room open. It needs no right
// to write quotas.
//
// A migration that was not refused, and for which room is open, is nudged likewise, for the
// first time after 150 ms: while KubeVirt creates one target pod it puts all others off for a
// second (handleTargetPodCreation in its pkg/virt-controller/watch/migration/migration.go).
//
// It remembers when it nudged whom, in memory only: after a restart the pauses begin
// anew. It is safe for concurrent use.
type nudger struct {
	// patch sends a JSON merge patch (types.MergePatchType) to the VMIM.
	patch func(ctx context.Context, namespace, name string, patch []byte) error
	// recorder receives an event on the VMIM for each nudge. It may be nil.
	recorder record.EventRecorder
	// nudged is called after each nudge, for a counter. It may be nil.
	nudged func(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration)

	mu    sync.Mutex
	waits map[string]map[types.UID]wait // by namespace
}

// A wait is for the target pod of a migration for which there is room.
type wait struct {
	next  time.Time
	pause time.Duration // after next
}

// nudgeAll nudges the migrations of snapshot, of which inFlight are in flight and offered have
// an offer, that are due. It returns when to call it again, zero if only after the next change.
// Errors of patch are joined, and do not keep it from nudging the others; a VMIM that is gone is
// no error.
func (n *nudger) nudgeAll(ctx context.Context, namespace string, snapshot Snapshot, inFlight []quota.Migration, quotas []*corev1.ResourceQuota, offered map[types.UID]bool) (time.Duration, error) {
	due, again := n.due(namespace, admissible(snapshot, inFlight, quotas, offered), snapshot.Now)
	var failed []error
	for _, vmim := range due {
		if err := n.nudge(ctx, vmim, snapshot.Now); err != nil {
			failed = append(failed, err)
		}
	}
	return again, errors.Join(failed...)
}

// due returns whom to nudge now, and when to look again.
func (n *nudger) due(namespace string, waiting []*kubevirtv1.VirtualMachineInstanceMigration, now time.Time) (due []*kubevirtv1.VirtualMachineInstanceMigration, again time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waits := make(map[types.UID]wait, len(waiting))
	for _, vmim := range waiting {
		w, known := n.waits[namespace][vmim.UID]
		switch {
		case !known:
			w = wait{next: now.Add(firstNudge), pause: minPause}
			if !refused(vmim) {
				w.next = now.Add(firstTry)
			}
		case !now.Before(w.next):
			due = append(due, vmim)
			w.next = now.Add(w.pause)
			w.pause = min(2*w.pause, maxPause)
		}
		waits[vmim.UID] = w
		if left := w.next.Sub(now); again == 0 || left < again {
			again = left
		}
	}
	if n.waits == nil {
		n.waits = map[string]map[types.UID]wait{}
	}
	n.waits[namespace] = waits
	if len(waits) == 0 {
		delete(n.waits, namespace)
	}
	return due, again
}

func (n *nudger) nudge(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration, now time.Time) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, NudgedAnnotation, now.UTC().Format(time.RFC3339Nano))
	err := n.patch(ctx, vmim.Namespace, vmim.Name, []byte(patch))
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("nudge VirtualMachineInstanceMigration %s/%s: %w", vmim.Namespace, vmim.Name, err)
	}
	klog.FromContext(ctx).V(2).Info("Woke KubeVirt: the quota has room for a target pod that did not come",
		"virtualMachineInstanceMigration", klog.KObj(vmim))
	if n.recorder != nil {
		n.recorder.Event(vmim, corev1.EventTypeNormal, "Nudged", "The quota has room for the target pod, and it did not come: KubeVirt was woken.")
	}
	if n.nudged != nil {
		n.nudged(ctx, vmim)
	}
	return nil
}

// admissible returns the VMIMs whose target pod quota has refused, and would admit now, and
// those that have an offer and were not refused. The oldest is the first.
func admissible(s Snapshot, inFlight []quota.Migration, quotas []*corev1.ResourceQuota, offered map[types.UID]bool) []*kubevirtv1.VirtualMachineInstanceMigration {
	if len(inFlight) == 0 {
		return nil
	}
	var found []*kubevirtv1.VirtualMachineInstanceMigration
	for _, vmim := range s.Migrations {
		switch {
		case vmim == nil:
			continue
		case !refused(vmim):
			if offered[vmim.UID] && vmim.Status.Phase == kubevirtv1.MigrationPending {
				found = append(found, vmim)
			}
			continue
		}
		at, ok := slices.BinarySearchFunc(inFlight, vmim.UID, func(m quota.Migration, uid types.UID) int { return cmp.Compare(m.UID, uid) })
		if !ok {
			continue
		}
		m := inFlight[at]
		waits := m.State == quota.Blocked || m.Held != nil // its claim is there, its pod is not
		if waits && admits(quotas, m) {
			found = append(found, vmim)
		}
	}
	slices.SortFunc(found, func(a, b *kubevirtv1.VirtualMachineInstanceMigration) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return found
}

// admits reports whether all quotas have room for what m does not hold yet, as the API
// server's quota admission would look at it: by status. They have not if it was refused by a
// quota that is none of them.
func admits(quotas []*corev1.ResourceQuota, m quota.Migration) bool {
	if m.RefusedBy != "" && !slices.ContainsFunc(quotas, func(rq *corev1.ResourceQuota) bool { return rq.Name == m.RefusedBy }) {
		return false
	}
	for _, rq := range quotas {
		under := []quota.Migration{m}
		if len(rq.Spec.Scopes) > 0 || rq.Spec.ScopeSelector != nil {
			under = quota.Under(rq, under)
		}
		for _, seen := range under {
			for name, limit := range rq.Status.Hard {
				need := less(seen.Surge[name], seen.Held[name])
				if need.Sign() <= 0 {
					continue
				}
				wanted := rq.Status.Used[name].DeepCopy()
				wanted.Add(need)
				if wanted.Cmp(limit) > 0 {
					return false
				}
			}
		}
	}
	return true
}
