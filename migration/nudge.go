package migration

import (
	"context"
	"errors"
	"fmt"
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

// NudgedAnnotation is what a [Nudger] touches on a VMIM: when it did so last.
const NudgedAnnotation = "headroom.vmquota.io/nudged"

const (
	firstNudge = time.Second
	minPause   = 500 * time.Millisecond
	maxPause   = time.Minute
)

// A Nudger wakes KubeVirt where it sleeps although there is room.
//
// When quota has refused a target pod, KubeVirt tries again as soon as it sees any
// update of the quota. That try can lose a race: it comes before the API server's
// admission has seen the new status.hard, is refused, and nothing else wakes KubeVirt
// before its back-off ends, which may be 1000 seconds (seen in 3 of 250 raises of the
// real one). An update of the VMIM wakes it at once. So: once the limits that are
// enforced (status.hard) have room for a refused target pod and it still does not come,
// the Nudger touches an annotation of the VMIM, after one second, half a second later
// (now and then KubeVirt sleeps on for a second), and then with pauses that double, up to
// a minute, until the pod is there or the migration is over. It needs no right to write
// quotas.
//
// It remembers when it nudged whom, in memory only: after a restart the pauses begin
// anew. It is safe for concurrent use.
type Nudger struct {
	Caches Caches
	Quotas List[corev1.ResourceQuota]
	// Patch sends a JSON merge patch (types.MergePatchType) to the VMIM.
	Patch func(ctx context.Context, namespace, name string, patch []byte) error
	// Now tells the time.
	Now func() time.Time

	// Recorder is told of every nudge, as an event on the VMIM. Nil: there are none.
	Recorder record.EventRecorder
	// Nudged is told of every nudge, for a counter. Nil: nobody is told.
	Nudged func(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration)

	mu    sync.Mutex
	waits map[string]map[types.UID]wait // by namespace
}

// A wait is for the target pod of a migration for which there is room.
type wait struct {
	next  time.Time
	pause time.Duration // after next
}

// Nudge looks at namespace, and nudges whom it must. It returns after which time it
// wants to look again, zero if only after the next change. Call it after every event
// of a ResourceQuota and of whatever [Namespace] finds of interest.
//
// An error of the caches means that nothing was done. Errors of Patch are joined, and
// do not keep it from nudging the others; a VMIM that is gone is no error.
func (n *Nudger) Nudge(ctx context.Context, namespace string) (time.Duration, error) {
	snapshot, err := n.Caches.Snapshot(ctx, namespace)
	if err != nil {
		return 0, err
	}
	quotas, err := list(ctx, n.Quotas, namespace, "ResourceQuotas")
	if err != nil {
		return 0, err
	}
	now := n.Now()
	due, again := n.due(namespace, admissible(snapshot, quotas), now)
	var failed []error
	for _, vmim := range due {
		if err := n.nudge(ctx, vmim, now); err != nil {
			failed = append(failed, err)
		}
	}
	return again, errors.Join(failed...)
}

// due returns whom to nudge now, and when to look again.
func (n *Nudger) due(namespace string, waiting []*kubevirtv1.VirtualMachineInstanceMigration, now time.Time) (due []*kubevirtv1.VirtualMachineInstanceMigration, again time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waits := make(map[types.UID]wait, len(waiting))
	for _, vmim := range waiting {
		w, known := n.waits[namespace][vmim.UID]
		switch {
		case !known:
			w = wait{next: now.Add(firstNudge), pause: minPause}
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

func (n *Nudger) nudge(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration, now time.Time) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, NudgedAnnotation, now.UTC().Format(time.RFC3339Nano))
	err := n.Patch(ctx, vmim.Namespace, vmim.Name, []byte(patch))
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("nudge VirtualMachineInstanceMigration %s/%s: %w", vmim.Namespace, vmim.Name, err)
	}
	klog.FromContext(ctx).V(2).Info("Woke KubeVirt: the quota has room for a target pod that did not come",
		"virtualMachineInstanceMigration", klog.KObj(vmim))
	if n.Recorder != nil {
		n.Recorder.Event(vmim, corev1.EventTypeNormal, "Nudged", "The quota has room for the target pod, and it did not come: KubeVirt was woken.")
	}
	if n.Nudged != nil {
		n.Nudged(ctx, vmim)
	}
	return nil
}

// admissible returns the VMIMs whose target pod quota has refused, and would admit now.
func admissible(s Snapshot, quotas []*corev1.ResourceQuota) []*kubevirtv1.VirtualMachineInstanceMigration {
	inFlight := map[types.UID]quota.Migration{}
	for _, m := range InFlight(s) {
		inFlight[m.UID] = m
	}
	var found []*kubevirtv1.VirtualMachineInstanceMigration
	for _, vmim := range s.Migrations {
		if vmim == nil || !refused(vmim) {
			continue
		}
		m, ok := inFlight[vmim.UID]
		waits := m.State == quota.Blocked || m.Held != nil // its claim is there, its pod is not
		if ok && waits && admits(quotas, m) {
			found = append(found, vmim)
		}
	}
	return found
}

// admits reports whether all quotas have room for what m does not hold yet, as the API
// server's quota admission would look at it: by status.
func admits(quotas []*corev1.ResourceQuota, m quota.Migration) bool {
	for _, rq := range quotas {
		for _, seen := range quota.Under(rq, []quota.Migration{m}) {
			for name, limit := range rq.Status.Hard {
				need := less(seen.Surge[name], seen.Held[name])
				wanted := rq.Status.Used[name].DeepCopy()
				wanted.Add(need)
				if need.Sign() > 0 && wanted.Cmp(limit) > 0 {
					return false
				}
			}
		}
	}
	return true
}
