package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// tenants keep the quotas of namespaces right: what they are made of is all of the
// library.
type tenants struct {
	caches   migration.Caches
	quotas   migration.List[corev1.ResourceQuota]
	observer *migration.Observer
	applier  *applier.Applier
	nudger   *migration.Nudger
	recorder record.EventRecorder
	metrics  *metrics
}

// surroundings are what tenants work with.
type surroundings struct {
	client   kubernetes.Interface
	patch    func(ctx context.Context, namespace, name string, patch []byte) error // of a VMIM
	caches   migration.Caches
	quotas   migration.List[corev1.ResourceQuota]
	ledger   ledger.Ledger
	recorder record.EventRecorder
	metrics  *metrics
	now      func() time.Time
}

func newTenants(with surroundings, o options) (*tenants, error) {
	record := &countedLedger{Ledger: with.ledger, metrics: with.metrics}
	writer, err := applier.New(applier.Config{
		Ledger:   record,
		Quotas:   with.client.CoreV1(),
		List:     with.quotas,
		Now:      with.now,
		Policy:   func(string) quota.Policy { return o.policy },
		Budget:   o.globalBudget,
		Disabled: func() bool { return o.disabled },
		Guard:    o.guard,
		Recorder: with.recorder,
		Metrics:  with.metrics,
	})
	if err != nil {
		return nil, err
	}
	return &tenants{
		caches: with.caches,
		quotas: with.quotas,
		observer: &migration.Observer{
			Caches: with.caches, Ledger: record, Queued: o.policy.Eager, Now: with.now, Observed: with.metrics.observed,
		},
		applier: writer,
		nudger: &migration.Nudger{
			Caches: with.caches, Quotas: with.quotas, Patch: with.patch, Now: with.now,
			Recorder: with.recorder, Nudged: with.metrics.nudged,
		},
		recorder: with.recorder,
		metrics:  with.metrics,
	}, nil
}

// keep does for namespace what migration.Keeper does, and takes notice of what came of it.
func (t *tenants) keep(ctx context.Context, namespace string) (time.Duration, error) {
	observed := t.observer.Observe(ctx, namespace)
	result, applied := t.applier.Apply(ctx, namespace)
	quotas, listed := t.quotas(ctx, namespace)
	if listed == nil {
		t.metrics.applied(namespace, quotas, result)
		t.tell(ctx, namespace, quotas, result)
	}
	again, nudged := t.nudger.Nudge(ctx, namespace)
	err := errors.Join(observed, applier.WorthRetry(applied), listed, nudged)
	if err != nil {
		t.metrics.failures.Inc()
	}
	return sooner(again, result.RetryAfter), err
}

// tell writes events where people look: on the quota that was raised or restored, and on
// the migrations that it was raised for. Of what goes wrong the applier tells itself.
func (t *tenants) tell(ctx context.Context, namespace string, quotas []*corev1.ResourceQuota, result applier.Result) {
	for _, q := range result.Quotas {
		i := slices.IndexFunc(quotas, func(rq *corev1.ResourceQuota) bool { return rq.Name == q.Name })
		if i < 0 {
			continue
		}
		switch q.Action {
		case applier.Raised:
			t.recorder.Eventf(quotas[i], corev1.EventTypeNormal, "HeadroomRaised", "Raised for %s: %s.", migrations(len(q.Decision.Granted)), text(q.Hard))
			t.tellGranted(ctx, namespace, q)
		case applier.Restored:
			t.recorder.Eventf(quotas[i], corev1.EventTypeNormal, "HeadroomRestored", "No live migration needs room any more: %s.", text(q.Hard))
		default: // what follows usage would be told too often
		}
	}
}

// tellGranted tells the blocked migrations that there is room for them.
func (t *tenants) tellGranted(ctx context.Context, namespace string, q applier.QuotaResult) {
	vmims, err := t.caches.Migrations(ctx, namespace)
	if err != nil {
		return
	}
	granted := map[types.UID]bool{}
	for _, uid := range q.Decision.Granted {
		granted[uid] = true
	}
	for _, vmim := range vmims {
		if granted[vmim.UID] && vmim.Status.Phase == kubevirtv1.MigrationPending {
			t.recorder.Eventf(vmim, corev1.EventTypeNormal, "HeadroomGranted", "ResourceQuota %s was raised to make room for the target pod.", q.Name)
		}
	}
}

func migrations(n int) string {
	if n == 1 {
		return "1 live migration"
	}
	return fmt.Sprintf("%d live migrations", n)
}

// sooner returns the lesser of two times to wait, of which zero is none at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
