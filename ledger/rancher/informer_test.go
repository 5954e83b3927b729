package rancher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// A real informer: its handlers of every kind, its store, its indexer.
func TestInformerShowsStatic(t *testing.T) {
	s := newStore(t)
	clientset := kubefake.NewSimpleClientset(raised("limits.cpu=4", "limits.cpu=5"))
	raw := informers.NewSharedInformerFactory(clientset, 0).Core().V1().ResourceQuotas().Informer()
	informer := s.shim.Informer(raw)
	require.NoError(t, informer.AddIndexers(cache.Indexers{"hard": func(o any) ([]string, error) {
		return []string{amounts(o.(*corev1.ResourceQuota).Spec.Hard)}, nil
	}}))
	seen := make(chan string, 10)
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen <- amounts(o.(*corev1.ResourceQuota).Spec.Hard) },
		UpdateFunc: func(_, o any) { seen <- amounts(o.(*corev1.ResourceQuota).Spec.Hard) },
	}
	registration, err := informer.AddEventHandler(handler)
	require.NoError(t, err)
	_, err = informer.AddEventHandlerWithResyncPeriod(handler, time.Hour)
	require.NoError(t, err)
	_, err = informer.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
	require.NoError(t, err)
	stop := make(chan struct{})
	defer close(stop)
	go informer.Run(stop)
	require.True(t, cache.WaitForCacheSync(stop, informer.HasSynced))
	for range 3 {
		require.Equal(t, "limits.cpu=4", <-seen)
	}

	require.NoError(t, informer.RemoveEventHandler(registration))
	_, err = clientset.CoreV1().ResourceQuotas("tenant").Update(ctx, raised("limits.cpu=6", "limits.cpu=8"), metav1.UpdateOptions{})
	require.NoError(t, err)
	for range 2 {
		require.Equal(t, "limits.cpu=6", <-seen)
	}
	found, err := informer.GetIndexer().ByIndex("hard", "limits.cpu=6")
	require.NoError(t, err)
	require.Len(t, found, 1)
	item, _, err := informer.GetStore().GetByKey("tenant/q")
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=6", amounts(item.(*corev1.ResourceQuota).Spec.Hard))
	item, _, err = raw.GetStore().GetByKey("tenant/q")
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=8", amounts(item.(*corev1.ResourceQuota).Spec.Hard))
}
