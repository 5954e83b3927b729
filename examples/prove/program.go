package main

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	events "k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// system is the namespace of the ledger.
const system = "headroom"

// An embedding is how a process has the library inside. The zero value is all of it, as it is.
type embedding struct {
	policy quota.Policy
	guard  bool // offers are announced to an admission policy
	// Of two processes, one may see the migrations and one enforce the limits.
	observesOnly, appliesOnly bool
	leads                     func() bool // of two replicas; nil: there is one

	// What a mutant changes; nil: nothing.
	ledger   func(ledger.Ledger, migration.Caches) ledger.Ledger
	quotas   func() quotaSeam
	parallel applier.Parallel
	noNudge  bool
	noEvents bool
}

// program builds the library into p, as a controller would that reconciles namespaces.
func (e embedding) program(p *fake.Process) fake.Program {
	caches := p.Caches.Migration()
	if e.noEvents {
		caches.Events = nil
	}
	clients := migration.Clients{Core: p.Client}
	quotas := migration.FromIndexer[corev1.ResourceQuota](p.Caches[fake.ResourceQuotas])
	if e.quotas != nil {
		seam := e.quotas()
		clients.Core, quotas = seam.client(p.Client), seam.list(quotas)
	}
	var record ledger.Ledger = configmap.New(p.Client.CoreV1(), system, configmap.WithInformer(informer{p.Caches[fake.ConfigMaps]}))
	if e.ledger != nil {
		record = e.ledger(record, caches)
	}
	options := migration.Options{
		Caches: &caches, Quotas: quotas, Patch: p.PatchMigration, Now: p.Now, Enqueue: p.Enqueue, Recorder: &events.FakeRecorder{},
		Ledger: record, RecordOnly: e.observesOnly, Guard: e.guard, Parallel: e.parallel,
		Policy: func(string) quota.Policy { return e.policy },
	}
	if e.noNudge {
		options.Patch = func(context.Context, string, string, []byte) error { return nil }
	}
	c, err := migration.NewController(clients, options)
	must(err) // nothing is missing
	reconcile := c.Reconcile
	if e.appliesOnly {
		a, err := applier.New(applier.Config{
			Ledger: record, Quotas: clients.Core.CoreV1(), List: quotas, Now: p.Now, Enqueue: p.Enqueue, Guard: e.guard, Parallel: e.parallel,
			Policy: options.Policy,
		})
		must(err)
		reconcile = func(ctx context.Context, namespace string) (time.Duration, error) {
			result, err := a.Apply(ctx, namespace)
			return result.RequeueAfter, applier.WorthRetry(err)
		}
	}
	return fake.Program{
		Namespace: fake.NamespaceOf,
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			if namespace == system || e.leads != nil && !e.leads() {
				return 0, nil
			}
			return reconcile(ctx, namespace)
		},
	}
}

// An informer is the cache of a process in the shape that the ledger takes. Changes come through
// fake.Program.Namespace.
type informer struct{ store cache.Store }

// GetStore implements configmap.Informer.
func (i informer) GetStore() cache.Store { return i.store }

// HasSynced implements configmap.Informer: a process starts with caches that are synced.
func (i informer) HasSynced() bool { return true }

// AddEventHandler implements configmap.Informer.
func (i informer) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return nil, errors.New("a simulated cache has no handlers")
}
