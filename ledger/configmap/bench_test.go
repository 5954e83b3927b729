package configmap_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

// benchmark runs f on a ledger in memory and on one in ConfigMaps whose cache is up to
// date, with 1 to 1000 migrations recorded.
func benchmark(b *testing.B, f func(ctx context.Context, l ledger.Ledger, migrations []quota.Migration) error) {
	ctx := context.Background()
	for _, n := range []int{1, 10, 100, 1000} {
		var migrations []quota.Migration
		for i := range n {
			migrations = append(migrations, quota.Migration{
				UID:   types.UID(fmt.Sprintf("0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0%04x", i)),
				VMI:   fmt.Sprintf("vm-%d", i),
				State: quota.Blocked,
				Surge: corev1.ResourceList{"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("2773714688")},
			})
		}
		clientset, store := fake.NewSimpleClientset(), cache.NewStore(cache.MetaNamespaceKeyFunc)
		withCache := configmap.New(clientset.CoreV1(), system, configmap.WithInformer(&informer{store: store, synced: true}))
		for name, l := range map[string]ledger.Ledger{"memory": memory.New(), "configmap": withCache} {
			if err := l.Replace(ctx, tenant, migrations); err != nil {
				b.Fatal(err)
			}
			if object, err := clientset.Tracker().Get(configMaps, system, configmap.Name(tenant)); err == nil {
				object.(*corev1.ConfigMap).ResourceVersion = "1"
				if err := store.Add(object); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(ctx, l, migrations); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkMigrations(b *testing.B) {
	benchmark(b, func(ctx context.Context, l ledger.Ledger, migrations []quota.Migration) error {
		got, err := l.Migrations(ctx, tenant)
		if len(got) != len(migrations) {
			return fmt.Errorf("%d migrations: %w", len(got), err)
		}
		return err
	})
}

// BenchmarkReplaceEqual is what an observer pays for an event that changes nothing.
func BenchmarkReplaceEqual(b *testing.B) {
	benchmark(b, func(ctx context.Context, l ledger.Ledger, migrations []quota.Migration) error {
		return l.Replace(ctx, tenant, migrations)
	})
}
