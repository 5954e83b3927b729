package rancher

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
)

// A reader enforces what a ledger says: it reconciles each namespace whose ledger or whose
// quotas have changed. Until the ledger says anything, it watches nothing else.
type reader struct {
	loop    *loop.Loop
	entries cache.SharedIndexInformer // of the ledger
	quotas  cache.SharedIndexInformer
	isOwn   bool          // it runs quotas itself
	needed  chan struct{} // has an element when the ledger has said anything
}

// newReader connects the informers, the ledger, the applier and the loop.
func newReader(config Config) (*reader, error) {
	r := &reader{quotas: config.Quotas, isOwn: config.Quotas == nil, needed: make(chan struct{}, 1)}
	if r.isOwn {
		r.quotas = informers.NewSharedInformerFactoryWithOptions(config.Client, 0,
			informers.WithTransform(withoutManagedFields)).Core().V1().ResourceQuotas().Informer()
	}
	r.entries = informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithNamespace(config.Namespace),
		informers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
	record := configmap.New(config.Client.CoreV1(), config.Namespace, configmap.WithInformer(r.entries))
	if _, err := record.OnChange(r.enqueue); err != nil {
		return nil, err
	}
	quotas := listers.NewResourceQuotaLister(r.quotas.GetIndexer())
	limits, err := applier.New(applier.Config{
		Ledger: record,
		Quotas: config.Client.CoreV1(),
		List: func(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
			return quotas.ResourceQuotas(namespace).List(labels.Everything())
		},
		Now:         config.Now,
		Policy:      config.Policy,
		Disabled:    config.Disabled,
		DisabledFor: config.DisabledFor,
		Parallel:    config.Parallel,
		Guard:       config.Guard,
		Recorder:    config.Recorder,
		Metrics:     config.Metrics,
		Enqueue:     r.enqueue,
	})
	if err != nil {
		return nil, err
	}
	r.loop, err = loop.New(loop.Config{
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			result, err := limits.Apply(ctx, namespace)
			return result.RequeueAfter, applier.WorthRetry(err)
		},
		Namespaces: func() ([]string, error) {
			return r.quotas.GetIndexer().ListIndexFuncValues(cache.NamespaceIndex), nil
		},
	})
	return r, err
}

func (r *reader) enqueue(namespace string) {
	r.loop.Add(namespace)
	select {
	case r.needed <- struct{}{}:
	default: // it is known already
	}
}

// run enforces until ctx is done, and returns when everything that it started has ended.
func (r *reader) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var watching wait.Group
	defer watching.Wait()
	defer stop()
	watching.StartWithContext(ctx, r.entries.RunWithContext)
	var err error
	select {
	case <-r.needed:
		var registration cache.ResourceEventHandlerRegistration
		if registration, err = r.quotas.AddEventHandler(r.loop.Handler(namespaceOf)); err != nil {
			stop()
			break
		}
		if r.isOwn {
			watching.StartWithContext(ctx, r.quotas.RunWithContext)
		} else {
			defer func() { _ = r.quotas.RemoveEventHandler(registration) }() // it fails only if the informer has ended too
		}
		cache.WaitForCacheSync(ctx.Done(), r.entries.HasSynced, registration.HasSynced)
	case <-ctx.Done():
	}
	r.loop.Run(ctx) // also if ctx is done, so that the queue ends
	return err
}

// withoutManagedFields is a transform: what nobody reads is not held.
func withoutManagedFields(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// namespaceOf returns the namespace of an object from an informer; empty if it has none.
func namespaceOf(object any) string {
	name, _ := cache.DeletionHandlingObjectToName(object)
	return name.Namespace
}
