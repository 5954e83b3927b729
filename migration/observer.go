package migration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// An Observer keeps a ledger true: it makes it say what the caches say. It is
// level-triggered and has no state, so a missed event, a restart or a second replica
// does no harm. It is safe for concurrent use.
//
// Call Observe from a work queue that is keyed by namespace, such as a loop.Loop, for
// every event that [Namespace] finds of interest, and for all namespaces now and then (a
// resync). Such a queue is what coalesces: of fifty migrations that start at once it makes
// a few calls, and each call costs at most one write. A [Keeper] calls it together with
// what comes after it.
type Observer struct {
	Caches Caches
	Ledger ledger.Ledger

	// Queued records queued migrations too. Only the policy quota.Policy.Eager
	// reads them; otherwise they cost writes for nothing.
	Queued bool
	// Now tells the time, for pods that are deleted and past their grace period;
	// see Snapshot. Nil: such pods stay charged until they are gone.
	Now func() time.Time
	// Observed is told what was recorded, also where nothing had changed. Nil:
	// nobody is told.
	Observed func(ctx context.Context, namespace string, inFlight []quota.Migration)
}

// Observe makes the ledger say what the caches say about namespace. It writes nothing
// if the ledger says so already.
//
// Its errors are those of the caches, then nothing was written, and those of
// Ledger.Replace. Trying again is always right.
func (o *Observer) Observe(ctx context.Context, namespace string) error {
	snapshot, err := o.Caches.Snapshot(ctx, namespace)
	if err != nil {
		return err
	}
	if o.Now != nil {
		snapshot.Now = o.Now()
	}
	inFlight := InFlight(snapshot)
	if !o.Queued {
		inFlight = slices.DeleteFunc(inFlight, func(m quota.Migration) bool { return m.State == quota.Queued })
	}
	if err := o.Ledger.Replace(ctx, namespace, inFlight); err != nil {
		return fmt.Errorf("namespace %q: record %d migrations: %w", namespace, len(inFlight), err)
	}
	klog.FromContext(ctx).V(4).Info("Recorded the migrations in flight", "namespace", namespace, "count", len(inFlight))
	if o.Observed != nil {
		o.Observed(ctx, namespace, inFlight)
	}
	return nil
}

// Namespace returns the namespace to look at after an event of object, and "" if the
// event says nothing about migrations: most pods and claims have nothing to do with
// virtual machines. It takes what informers hand to their event handlers, the
// tombstones of missed deletions included. An [Observer] has no use for events of
// ResourceQuotas; a [Keeper] has.
func Namespace(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch o := object.(type) {
	case *kubevirtv1.VirtualMachineInstanceMigration:
		return o.Namespace
	case *kubevirtv1.VirtualMachineInstance:
		return o.Namespace
	case *corev1.LimitRange:
		return o.Namespace
	case *corev1.ResourceQuota:
		return o.Namespace
	case *corev1.Namespace:
		return o.Name
	case *corev1.Event:
		if IsRefusal(o) {
			return o.Namespace
		}
	case *corev1.Pod:
		if _, ok := o.Labels[kubevirtv1.AppLabel]; ok {
			return o.Namespace
		}
	case *corev1.PersistentVolumeClaim:
		_, first := o.Labels[persistentState]
		_, second := o.Labels[kubevirtv1.MigrationNameLabel]
		if first || second || strings.HasPrefix(o.Name, persistentState) {
			return o.Namespace
		}
	}
	return ""
}
