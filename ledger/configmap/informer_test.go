package configmap_test

import (
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/configmap"
)

// An informer that lags as much as a test wants it to: its cache is what the server had
// at the last call of sync.
type informer struct {
	server  *server
	store   cache.Store
	handler cache.ResourceEventHandler
	mu      sync.Mutex
	synced  bool
}

var _ configmap.Informer = (*informer)(nil)

func newInformer(s *server) *informer {
	return &informer{server: s, store: cache.NewStore(cache.MetaNamespaceKeyFunc), synced: true}
}

func (i *informer) GetStore() cache.Store { return i.store }

func (i *informer) HasSynced() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.synced
}

// AddEventHandler leaves the calls of handler to the test.
func (i *informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.handler = handler
	return nil, nil
}

// sync lets the cache catch up.
func (i *informer) sync(t *testing.T) {
	list, err := i.server.Tracker().List(configMaps, corev1.SchemeGroupVersion.WithKind("ConfigMap"), system)
	if err != nil {
		t.Error(err)
		return
	}
	var objects []any
	for _, item := range list.(*corev1.ConfigMapList).Items {
		objects = append(objects, &item)
	}
	if err := i.store.Replace(objects, ""); err != nil {
		t.Error(err)
	}
}
