package namespace

import (
	"context"
	"strconv"
	"testing"

	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A server is the inner controller: one API server and cache of quotas, with
// resourceVersions, on which nothing happens but what is called.
type server struct {
	wranglercorev1.ResourceQuotaController // the rest is not there
	t                                      *testing.T
	quotas                                 cache.Indexer
	version                                int
	impersonated                           string
	watch                                  *watch.FakeWatcher
	handlers                               []generic.Handler
	patched                                string
}

var resources = corev1.Resource("resourcequotas")

func newServer(t *testing.T, quotas ...*corev1.ResourceQuota) *server {
	s := &server{t: t, watch: watch.NewFake()}
	s.quotas = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, rq := range quotas {
		s.put(rq)
	}
	return s
}

// decorated returns the Quotas of a ledger in memory, and the server behind them.
func (s *server) decorated() (*memory.Ledger, wranglercorev1.ResourceQuotaController) {
	record := memory.New()
	shim, err := rancher.New(rancher.Config{Ledger: record})
	require.NoError(s.t, err)
	return record, (&Quotas{shim: shim}).Decorate(s)
}

func (s *server) put(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	s.version++
	rq = rq.DeepCopy()
	rq.ResourceVersion = strconv.Itoa(s.version)
	require.NoError(s.t, s.quotas.Update(rq))
	return rq.DeepCopy()
}

func (s *server) Create(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if _, err := s.Cache().Get(rq.Namespace, rq.Name); err == nil {
		return nil, apierrors.NewAlreadyExists(resources, rq.Name)
	}
	return s.put(rq), nil
}

func (s *server) Update(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	stored, err := s.Cache().Get(rq.Namespace, rq.Name)
	if err != nil {
		return nil, err
	}
	if stored.ResourceVersion != rq.ResourceVersion {
		return nil, apierrors.NewConflict(resources, rq.Name, nil)
	}
	return s.put(rq), nil
}

func (s *server) UpdateStatus(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	stored, err := s.Get(rq.Namespace, rq.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	stored.Status = rq.Status
	return s.put(stored), nil
}

func (s *server) Delete(namespace, name string, _ *metav1.DeleteOptions) error {
	stored, err := s.Cache().Get(namespace, name)
	if err != nil {
		return err
	}
	return s.quotas.Delete(stored)
}

func (s *server) DeleteCollection(_ string, _ metav1.DeleteOptions, _ metav1.ListOptions) error {
	for _, o := range s.quotas.List() {
		if err := s.quotas.Delete(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Get(namespace, name string, _ metav1.GetOptions) (*corev1.ResourceQuota, error) {
	stored, err := s.Cache().Get(namespace, name)
	if err != nil {
		return &corev1.ResourceQuota{}, err // as wrangler does
	}
	return stored.DeepCopy(), nil
}

func (s *server) List(string, metav1.ListOptions) (*corev1.ResourceQuotaList, error) {
	list := &corev1.ResourceQuotaList{}
	for _, o := range s.quotas.List() {
		list.Items = append(list.Items, *o.(*corev1.ResourceQuota))
	}
	return list, nil
}

func (s *server) Watch(string, metav1.ListOptions) (watch.Interface, error) { return s.watch, nil }

func (s *server) Patch(namespace, name string, _ types.PatchType, data []byte, _ ...string) (*corev1.ResourceQuota, error) {
	s.patched = string(data)
	return s.Get(namespace, name, metav1.GetOptions{})
}

func (s *server) WithImpersonation(config rest.ImpersonationConfig) (generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList], error) {
	s.impersonated = config.UserName
	return s, nil
}

func (s *server) Cache() generic.CacheInterface[*corev1.ResourceQuota] {
	return generic.NewCache[*corev1.ResourceQuota](s.quotas, resources)
}

func (s *server) Updater() generic.Updater { return nil }

func (s *server) AddGenericHandler(_ context.Context, _ string, handler generic.Handler) {
	s.handlers = append(s.handlers, handler)
}

// An informer has the cache of the server.
type informer struct {
	cache.SharedIndexInformer
	indexer cache.Indexer
}

func (i informer) GetIndexer() cache.Indexer { return i.indexer }

func (s *server) Informer() cache.SharedIndexInformer { return informer{indexer: s.quotas} }
