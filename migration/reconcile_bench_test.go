package migration_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
)

// indexed lists objects from an indexer of client-go.
func indexed[E any, T interface {
	*E
	metav1.Object
}](objects ...T) (migration.List[E], cache.Indexer) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, o := range objects {
		if err := indexer.Add(o); err != nil {
			panic(err)
		}
	}
	return migration.FromIndexer[E](indexer), indexer
}

// BenchmarkReconcile: a namespace with n virtual machines, in the caches of the embedder. Nothing
// has changed since the last reconcile.
func BenchmarkReconcile(b *testing.B) {
	for state, begin := range map[string]begin{"idle": idle, "over": over, "refused": refused, "charged": running} {
		for _, n := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/machines=%d", state, n), func(b *testing.B) {
				s := crowd(b, n, eightResources, begin)
				var caches migration.Caches
				caches.Migrations, _ = indexed(s.Migrations...)
				caches.VMIs, _ = indexed(s.VMIs...)
				caches.Pods, _ = indexed(s.Pods...)
				benchmarkReconcile(b, caches, n)
			})
		}
	}
}

func benchmarkReconcile(b *testing.B, caches migration.Caches, n int) {
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "q", UID: "uid-q"}}
	static := corev1.ResourceList{}
	for name, q := range list("limits.cpu=1015m limits.memory=2773714688 requests.cpu=105m requests.memory=1391000000") {
		q.Mul(int64(n))
		static[name] = resource.MustParse(q.String())
	}
	rq.Spec.Hard = static
	rq.Status = corev1.ResourceQuotaStatus{Hard: static, Used: static}
	client := fake.NewClientset(rq)
	quotas, indexer := indexed(rq)
	var writes int
	c := embedded(b, client, migration.Options{
		Caches: &caches, Quotas: quotas, Now: func() time.Time { return start },
		Reconciled: func(_ context.Context, r migration.Report) {
			for _, q := range r.Result.Quotas {
				if q.Action != applier.Unchanged {
					writes++
				}
			}
		},
	})
	reconcile := func() {
		_, err := c.Reconcile(b.Context(), "tenant")
		require.NoError(b, err)
	}
	reconcile()
	written, err := client.CoreV1().ResourceQuotas("tenant").Get(b.Context(), "q", metav1.GetOptions{})
	require.NoError(b, err)
	require.NoError(b, indexer.Update(written))
	reconcile()
	writes = 0
	b.ReportAllocs()
	for b.Loop() {
		reconcile()
	}
	require.Zero(b, writes, "nothing has changed")
}

// BenchmarkMigration: one migration as it was recorded, from its creation until it is over, with
// a reconcile after each event.
func BenchmarkMigration(b *testing.B) {
	r := recordingOf(nil, "basic")
	vmims, vmimStore := indexed[kubevirtv1.VirtualMachineInstanceMigration]()
	vmis, vmiStore := indexed[kubevirtv1.VirtualMachineInstance]()
	pods, podStore := indexed[corev1.Pod]()
	quotas, quotaStore := indexed[corev1.ResourceQuota]()
	client := fake.NewClientset()
	client.PrependReactor("update", "resourcequotas", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return true, action.(clienttesting.UpdateAction).GetObject(), nil
	})
	now := start
	c := embedded(b, client, migration.Options{
		Caches: &migration.Caches{Migrations: vmims, VMIs: vmis, Pods: pods}, Quotas: quotas,
		Now: func() time.Time { return now },
	})
	b.ReportAllocs()
	for b.Loop() {
		begun := false
		for _, e := range r.events {
			store := podStore
			switch e.Object.(type) {
			case *corev1.ResourceQuota:
				store = quotaStore
			case *kubevirtv1.VirtualMachineInstance:
				store = vmiStore
			case *kubevirtv1.VirtualMachineInstanceMigration:
				store, begun = vmimStore, true
			}
			require.NoError(b, store.Update(e.Object))
			if !begun {
				continue
			}
			now = now.Add(10 * time.Millisecond)
			_, err := c.Reconcile(b.Context(), r.namespace)
			require.NoError(b, err)
		}
		for _, store := range []cache.Indexer{vmimStore, vmiStore, podStore, quotaStore} {
			require.NoError(b, store.Replace(nil, ""))
		}
	}
}
