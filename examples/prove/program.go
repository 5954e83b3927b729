package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// system is the namespace of the ledger.
const system = "headroom"

// An embedding is how a process has the library inside. The zero value is all of it, as
// it is.
type embedding struct {
	policy quota.Policy
	// Of two processes, one may see the migrations and one write the quotas.
	observesOnly, appliesOnly bool

	// What a mutant changes; nil: nothing.
	ledger    func(ledger.Ledger, migration.Caches) ledger.Ledger
	quotas    func(typedcorev1.ResourceQuotasGetter) typedcorev1.ResourceQuotasGetter
	list      func(migration.List[corev1.ResourceQuota]) migration.List[corev1.ResourceQuota]
	forgetful bool // the applier remembers nothing
	noNudge   bool
	noEvents  bool
}

// program builds the library into p, as a controller would that reconciles namespaces.
func (e embedding) program(p *fake.Process) fake.Program {
	caches := migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](p.Caches.Migrations),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](p.Caches.VMIs),
		Pods:        migration.FromIndexer[corev1.Pod](p.Caches.Pods),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](p.Caches.LimitRanges),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](p.Caches.Claims),
		Events:      migration.FromIndexer[corev1.Event](p.Caches.Events),
	}
	if e.noEvents {
		caches.Events = nil
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](p.Caches.ResourceQuotas)
	if e.list != nil {
		quotas = e.list(quotas)
	}
	var record ledger.Ledger = configmap.New(p.Client.CoreV1(), system, configmap.WithInformer(informer{p.Caches.ConfigMaps}))
	if e.ledger != nil {
		record = e.ledger(record, caches)
	}
	var client typedcorev1.ResourceQuotasGetter = p.Client.CoreV1()
	if e.quotas != nil {
		client = e.quotas(client)
	}
	observer := migration.Observer{Caches: caches, Ledger: record, Now: p.Now, Queued: e.policy.Eager}
	nudger := migration.Nudger{Caches: caches, Quotas: quotas, Patch: p.PatchMigration, Now: p.Now}
	newApplier := func() *applier.Applier {
		a, err := applier.New(applier.Config{
			Ledger: record, Quotas: client, List: quotas, Now: p.Now,
			Policy: func(string) quota.Policy { return e.policy },
		})
		if err != nil {
			panic(err) // nothing is missing
		}
		return a
	}
	writer := newApplier()
	return fake.Program{
		Namespace: namespaceOf,
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			if namespace == system {
				return 0, nil
			}
			if e.forgetful {
				writer = newApplier()
			}
			var again time.Duration
			var failed []error
			if !e.appliesOnly {
				failed = append(failed, observer.Observe(ctx, namespace))
			}
			if !e.observesOnly {
				applied, err := writer.Apply(ctx, namespace)
				failed, again = append(failed, applier.WorthRetry(err)), applied.RetryAfter
			}
			if !e.appliesOnly && !e.noNudge {
				look, err := nudger.Nudge(ctx, namespace)
				failed = append(failed, err)
				again = earlier(again, look)
			}
			return again, errors.Join(failed...)
		},
	}
}

// namespaceOf says which namespace an event concerns.
func namespaceOf(object any) string {
	switch o := undeleted(object).(type) {
	case *corev1.ResourceQuota:
		return o.Namespace
	case *corev1.ConfigMap:
		return o.Labels[configmap.Label]
	}
	return migration.Namespace(object)
}

func undeleted(object any) any {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		return tombstone.Obj
	}
	return object
}

// earlier returns the shorter of two pauses, of which zero is none.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}

// An informer is the cache of a process in the shape that the ledger takes. Changes come
// through fake.Program.Namespace.
type informer struct{ store cache.Store }

// GetStore implements configmap.Informer.
func (i informer) GetStore() cache.Store { return i.store }

// HasSynced implements configmap.Informer: a process starts with caches that are synced.
func (i informer) HasSynced() bool { return true }

// AddEventHandler implements configmap.Informer.
func (i informer) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return nil, errors.New("a simulated cache has no handlers")
}
