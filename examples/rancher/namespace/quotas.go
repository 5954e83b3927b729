// Package namespace is what goes into Rancher's package of that name, pkg/namespace: one
// file. See the README of this module for the rest.
package namespace

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/ledger/rancher"
)

// LedgerNamespace is where the ledger is, in the cluster that the quotas are in.
const LedgerNamespace = "headroom"

// Quotas keep the static limits of one cluster and the headroom of its live migrations
// apart. NewQuotas makes them. Nil Quotas decorate nothing.
type Quotas struct {
	client     kubernetes.Interface
	configMaps configMaps
	record     *configmap.Ledger
	shim       *rancher.Shim
	takeover   bool
}

// TakeoverVariable is the environment variable that has what a Harvester from before this
// library has raised taken over, if it is "true". It is for when every Harvester has the
// library: what is taken over, an old one does not take out of the ledger.
const TakeoverVariable = "HEADROOM_RANCHER_TAKEOVER"

// NewQuotas returns the Quotas of the cluster of client, which reads the ledger. Disabled
// is a kill switch, such as a setting or a feature flag; nil: the environment variable
// HEADROOM_RANCHER_DISABLED is the only one.
func NewQuotas(client kubernetes.Interface, disabled func() bool) (*Quotas, error) {
	q := &Quotas{client: client, takeover: os.Getenv(TakeoverVariable) == "true"}
	q.record = configmap.New(client.CoreV1(), LedgerNamespace, configmap.WithInformer(&q.configMaps))
	shim, err := rancher.New(rancher.Config{Ledger: q.record, Disabled: disabled, Takeover: q.takeover})
	q.shim = shim
	return q, err
}

// Decorate returns a controller whose reads show static limits and whose writes store
// effective ones.
func (q *Quotas) Decorate(inner wranglercorev1.ResourceQuotaController) wranglercorev1.ResourceQuotaController {
	if q == nil {
		return inner
	}
	return &quotaController{ResourceQuotaController: inner, quotaClient: quotaClient{ClientInterface: inner, shim: q.shim}}
}

// Run raises and lowers the quotas of quotas when the ledger changes, until ctx is done.
// It needs the cache of quotas, which is started by whoever starts its factory. It writes
// with client, which must be one that the write lock lets through, as that of the
// controller is. Either may be decorated or not. What fails is logged, by klog's logger in
// ctx, and tried again.
//
// When it has returned it may be called again, but not before. Without it the ledger is
// read from the API server at each write.
func (q *Quotas) Run(ctx context.Context, quotas wranglercorev1.ResourceQuotaController, client wranglercorev1.ResourceQuotaClient) error {
	if decorated, ok := quotas.(*quotaController); ok {
		quotas = decorated.ResourceQuotaController
	}
	informer := informers.NewSharedInformerFactoryWithOptions(q.client, 0, informers.WithNamespace(LedgerNamespace),
		informers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
	q.configMaps.next = informer
	look, err := q.look(quotas, undecorated(client))
	if err != nil {
		return err
	}
	l, err := loop.New(loop.Config{
		Look: look,
		Namespaces: func() ([]string, error) {
			return quotas.Informer().GetIndexer().ListIndexFuncValues(cache.NamespaceIndex), nil
		},
		Now: time.Now,
	})
	if err != nil {
		return err
	}
	if _, err := q.record.OnChange(l.Add); err != nil {
		return err
	}
	registration, err := quotas.Informer().AddEventHandler(l.Handler(func(o any) string {
		name, err := cache.DeletionHandlingObjectToName(o)
		if err != nil {
			return ""
		}
		return name.Namespace
	}))
	if err != nil {
		return err
	}
	defer func() { _ = quotas.Informer().RemoveEventHandler(registration) }() // it fails if the informer has ended too
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Add(1)
	go func() {
		defer watching.Done()
		informer.Run(ctx.Done())
	}()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced, registration.HasSynced) {
		return ctx.Err()
	}
	q.configMaps.current.Store(&informer)
	l.Run(ctx)
	return nil
}

// configMaps are the cache of the ledger's ConfigMaps. An informer runs only once, so that
// each Run has its own. What has not been read yet, or is no longer kept up, is not a cache.
type configMaps struct {
	next    cache.SharedIndexInformer
	current atomic.Pointer[cache.SharedIndexInformer]
}

func (c *configMaps) HasSynced() bool {
	informer := c.current.Load()
	return informer != nil && !(*informer).IsStopped()
}

func (c *configMaps) GetStore() cache.Store {
	if informer := c.current.Load(); informer != nil {
		return (*informer).GetStore()
	}
	return cache.NewStore(cache.MetaNamespaceKeyFunc)
}

func (c *configMaps) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return c.next.AddEventHandler(handler)
}

// undecorated returns what is behind a decorated client.
func undecorated(client wranglercorev1.ResourceQuotaClient) wranglercorev1.ResourceQuotaClient {
	switch decorated := client.(type) {
	case *quotaController:
		return decorated.ResourceQuotaController
	case *quotaClient:
		return decorated.ClientInterface
	default:
		return client
	}
}

// look returns what Run does about a namespace, when to look again included.
func (q *Quotas) look(quotas wranglercorev1.ResourceQuotaController, writer wranglercorev1.ResourceQuotaClient) (func(ctx context.Context, namespace string) (time.Duration, error), error) {
	client, stored := &privileged{ResourceQuotasGetter: q.client.CoreV1(), client: writer}, quotas.Cache()
	list := func(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
		return stored.List(namespace, labels.Everything())
	}
	limits, err := q.shim.Applier(applier.Config{Quotas: client, List: list, Now: time.Now})
	if err != nil {
		return nil, err
	}
	takeover := rancher.Takeover{Quotas: client, List: list, Limits: q.limits, Ledger: q.record, Seed: true}
	return func(ctx context.Context, namespace string) (time.Duration, error) {
		if q.takeover && !q.shim.Disabled() {
			if err := takeover.Adopt(ctx, namespace); err != nil {
				return 0, err
			}
		}
		result, err := limits.Apply(ctx, namespace)
		return result.RetryAfter, applier.WorthRetry(err)
	}, nil
}

// limits returns what is asked for a namespace.
func (q *Quotas) limits(ctx context.Context, name string) (corev1.ResourceList, error) {
	ns, err := q.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return rancher.Limits(ns)
}

// quotaClient is a decorated client. What it does not have is that of the inner one.
type quotaClient struct {
	generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList]
	shim *rancher.Shim
}

func (c *quotaClient) Create(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	stored, err := c.shim.Stored(context.TODO(), rq)
	if err != nil {
		return nil, err
	}
	answer, err := c.ClientInterface.Create(stored)
	return c.shim.Shown(answer), err
}

func (c *quotaClient) Update(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	stored, err := c.shim.Stored(context.TODO(), rq)
	if err != nil {
		return nil, err
	}
	answer, err := c.ClientInterface.Update(stored)
	return c.shim.Shown(answer), err
}

func (c *quotaClient) UpdateStatus(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	answer, err := c.ClientInterface.UpdateStatus(rq)
	return c.shim.Shown(answer), err
}

func (c *quotaClient) Get(namespace, name string, options metav1.GetOptions) (*corev1.ResourceQuota, error) {
	rq, err := c.ClientInterface.Get(namespace, name, options)
	return c.shim.Shown(rq), err
}

func (c *quotaClient) List(namespace string, options metav1.ListOptions) (*corev1.ResourceQuotaList, error) {
	list, err := c.ClientInterface.List(namespace, options)
	return c.shim.ShownList(list), err
}

func (c *quotaClient) Watch(namespace string, options metav1.ListOptions) (watch.Interface, error) {
	w, err := c.ClientInterface.Watch(namespace, options)
	if err != nil {
		return nil, err
	}
	return c.shim.Watch(w), nil
}

func (c *quotaClient) Patch(namespace, name string, pt types.PatchType, data []byte, subresources ...string) (*corev1.ResourceQuota, error) {
	patch := rancher.Patch{Namespace: namespace, Name: name, Type: pt, Data: data, Subresources: subresources}
	return c.shim.Patch(context.TODO(), patch, rancher.Verbs{
		Get: func() (*corev1.ResourceQuota, error) {
			return c.ClientInterface.Get(namespace, name, metav1.GetOptions{})
		},
		Update: c.ClientInterface.Update,
		Patch: func() (*corev1.ResourceQuota, error) {
			return c.ClientInterface.Patch(namespace, name, pt, data, subresources...)
		},
	})
}

func (c *quotaClient) WithImpersonation(impersonate rest.ImpersonationConfig) (generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList], error) {
	inner, err := c.ClientInterface.WithImpersonation(impersonate)
	if err != nil {
		return nil, err
	}
	return &quotaClient{ClientInterface: inner, shim: c.shim}, nil
}

// quotaCache is a decorated cache.
type quotaCache struct {
	inner generic.CacheInterface[*corev1.ResourceQuota]
	shim  *rancher.Shim
}

func (c *quotaCache) Get(namespace, name string) (*corev1.ResourceQuota, error) {
	rq, err := c.inner.Get(namespace, name)
	return c.shim.Shown(rq), err
}

func (c *quotaCache) List(namespace string, selector labels.Selector) ([]*corev1.ResourceQuota, error) {
	quotas, err := c.inner.List(namespace, selector)
	return c.shim.ShownAll(quotas), err
}

func (c *quotaCache) AddIndexer(name string, indexer generic.Indexer[*corev1.ResourceQuota]) {
	c.inner.AddIndexer(name, func(rq *corev1.ResourceQuota) ([]string, error) { return indexer(c.shim.Shown(rq)) })
}

func (c *quotaCache) GetByIndex(name, key string) ([]*corev1.ResourceQuota, error) {
	quotas, err := c.inner.GetByIndex(name, key)
	return c.shim.ShownAll(quotas), err
}

// quotaController is a decorated controller. What it does not have is that of the inner
// one: GroupVersionKind, Enqueue, EnqueueAfter.
type quotaController struct {
	wranglercorev1.ResourceQuotaController
	quotaClient
}

func (c *quotaController) Create(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	return c.quotaClient.Create(rq)
}

func (c *quotaController) Update(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	return c.quotaClient.Update(rq)
}

func (c *quotaController) UpdateStatus(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	return c.quotaClient.UpdateStatus(rq)
}

func (c *quotaController) Delete(namespace, name string, options *metav1.DeleteOptions) error {
	return c.quotaClient.Delete(namespace, name, options)
}

func (c *quotaController) DeleteCollection(namespace string, options metav1.DeleteOptions, selected metav1.ListOptions) error {
	return c.quotaClient.DeleteCollection(namespace, options, selected)
}

func (c *quotaController) Get(namespace, name string, options metav1.GetOptions) (*corev1.ResourceQuota, error) {
	return c.quotaClient.Get(namespace, name, options)
}

func (c *quotaController) List(namespace string, options metav1.ListOptions) (*corev1.ResourceQuotaList, error) {
	return c.quotaClient.List(namespace, options)
}

func (c *quotaController) Watch(namespace string, options metav1.ListOptions) (watch.Interface, error) {
	return c.quotaClient.Watch(namespace, options)
}

func (c *quotaController) Patch(namespace, name string, pt types.PatchType, data []byte, subresources ...string) (*corev1.ResourceQuota, error) {
	return c.quotaClient.Patch(namespace, name, pt, data, subresources...)
}

func (c *quotaController) WithImpersonation(impersonate rest.ImpersonationConfig) (generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList], error) {
	return c.quotaClient.WithImpersonation(impersonate)
}

func (c *quotaController) Cache() generic.CacheInterface[*corev1.ResourceQuota] {
	return &quotaCache{inner: c.ResourceQuotaController.Cache(), shim: c.shim}
}

func (c *quotaController) Informer() cache.SharedIndexInformer {
	return c.shim.Informer(c.ResourceQuotaController.Informer())
}

func (c *quotaController) Updater() generic.Updater {
	return func(o runtime.Object) (runtime.Object, error) {
		rq, ok := o.(*corev1.ResourceQuota)
		if !ok {
			return c.ResourceQuotaController.Updater()(o)
		}
		answer, err := c.Update(rq)
		if answer == nil {
			return nil, err
		}
		return answer, err
	}
}

// AddGenericHandler registers a handler that is given what is shown. If it returns that,
// the handlers after it see what is stored, as if it had not been there.
func (c *quotaController) AddGenericHandler(ctx context.Context, name string, handler generic.Handler) {
	c.ResourceQuotaController.AddGenericHandler(ctx, name, func(key string, o runtime.Object) (runtime.Object, error) {
		shown := c.shim.ShownObject(o)
		answer, err := handler(key, shown)
		if answer != nil && answer == shown {
			answer = o
		}
		return answer, err
	})
}

func (c *quotaController) AddGenericRemoveHandler(ctx context.Context, name string, handler generic.Handler) {
	c.AddGenericHandler(ctx, name, generic.NewRemoveHandler(name, c.Updater(), handler))
}

func (c *quotaController) OnChange(ctx context.Context, name string, sync generic.ObjectHandler[*corev1.ResourceQuota]) {
	c.AddGenericHandler(ctx, name, generic.FromObjectHandlerToHandler(sync))
}

func (c *quotaController) OnRemove(ctx context.Context, name string, sync generic.ObjectHandler[*corev1.ResourceQuota]) {
	c.AddGenericRemoveHandler(ctx, name, generic.FromObjectHandlerToHandler(sync))
}

// privileged is the client that Rancher writes quotas with, in the shape that an applier
// needs.
type privileged struct {
	typedcorev1.ResourceQuotasGetter
	client generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList]
}

func (p *privileged) ResourceQuotas(namespace string) typedcorev1.ResourceQuotaInterface {
	return &privilegedIn{p.ResourceQuotasGetter.ResourceQuotas(namespace), p.client, namespace}
}

type privilegedIn struct {
	typedcorev1.ResourceQuotaInterface
	client    generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList]
	namespace string
}

func (p *privilegedIn) Update(_ context.Context, rq *corev1.ResourceQuota, _ metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	return p.client.Update(rq)
}

func (p *privilegedIn) Get(_ context.Context, name string, options metav1.GetOptions) (*corev1.ResourceQuota, error) {
	return p.client.Get(p.namespace, name, options)
}

var (
	_ wranglercorev1.ResourceQuotaController                                        = (*quotaController)(nil)
	_ wranglercorev1.ResourceQuotaClient                                            = (*quotaClient)(nil)
	_ wranglercorev1.ResourceQuotaCache                                             = (*quotaCache)(nil)
	_ generic.ControllerInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList] = (*quotaController)(nil)
	_ generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList]     = (*quotaClient)(nil)
	_ generic.CacheInterface[*corev1.ResourceQuota]                                 = (*quotaCache)(nil)
)
