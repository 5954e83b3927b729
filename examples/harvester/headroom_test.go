package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

const (
	user   = "system:serviceaccount:harvester-system:harvester"
	system = "harvester-system"
)

// listed reads an indexer of the simulated cluster through a cache of wrangler.
func listed[T any, P interface {
	*T
	generic.RuntimeMetaObject
}](indexer cache.Indexer, resource string) migration.List[T] {
	objects := generic.NewCache[P](indexer, schema.GroupResource{Resource: resource})
	return cached(func(namespace string, selector labels.Selector) ([]*T, error) {
		found, err := objects.List(namespace, selector)
		plain := make([]*T, len(found))
		for i := range found {
			plain[i] = found[i]
		}
		return plain, err
	})
}

// harvester is the handler of this example in a process of the simulated cluster.
func harvester(o options) func(p *fake.Process) fake.Program {
	return func(p *fake.Process) fake.Program {
		o := o
		o.namespaces = p.Client.CoreV1()
		if o.rollback {
			o.mirror = uidFrom(generic.NewCache[*kubevirtv1.VirtualMachineInstance](p.Caches.VMIs, schema.GroupResource{Resource: "virtualmachineinstances"}))
		}
		h, err := newHeadroom(migration.Caches{
			Migrations:  listed[kubevirtv1.VirtualMachineInstanceMigration](p.Caches.Migrations, "virtualmachineinstancemigrations"),
			VMIs:        listed[kubevirtv1.VirtualMachineInstance](p.Caches.VMIs, "virtualmachineinstances"),
			Pods:        listed[corev1.Pod](p.Caches.Pods, "pods"),
			LimitRanges: listed[corev1.LimitRange](p.Caches.LimitRanges, "limitranges"),
			PVCs:        listed[corev1.PersistentVolumeClaim](p.Caches.Claims, "persistentvolumeclaims"),
			Events:      listed[corev1.Event](p.Caches.Events, "events"),
		}, applier.Config{
			Ledger: configmap.New(p.Client.CoreV1(), system),
			Quotas: p.Client.CoreV1(),
			List:   listed[corev1.ResourceQuota](p.Caches.ResourceQuotas, "resourcequotas"),
			Now:    p.Now,
		}, p.PatchMigration, o)
		if err != nil {
			panic(err)
		}
		namespaces := generic.NewNonNamespacedCache[*corev1.Namespace](p.Caches.Namespaces, corev1.Resource("namespaces"))
		return fake.Program{Reconcile: func(_ context.Context, name string) (time.Duration, error) {
			ns, err := namespaces.Get(name)
			if err != nil && !apierrors.IsNotFound(err) {
				return 0, err
			}
			var again time.Duration
			h.enqueue = func(_ string, after time.Duration) {
				if again == 0 || after < again {
					again = after
				}
			}
			_, err = h.onNamespace(name, ns)
			return again, err
		}, Namespace: concerned}
	}
}

// concerned is which namespace is to be looked at after an event of object: its own, and
// that of an entry of the ledger.
func concerned(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch o := object.(type) {
	case *corev1.ConfigMap:
		return o.Labels[configmap.Label]
	case *corev1.Namespace:
		return o.Name
	case metav1.Object:
		return o.GetNamespace()
	default:
		return ""
	}
}

// rancherProcess writes what the ledger says, as Rancher's process does with its shim.
func rancherProcess(p *fake.Process) fake.Program {
	writer, err := applier.New(applier.Config{
		Ledger: configmap.New(p.Client.CoreV1(), system),
		Quotas: p.Client.CoreV1(),
		List:   listed[corev1.ResourceQuota](p.Caches.ResourceQuotas, "resourcequotas"),
		Now:    p.Now,
	})
	if err != nil {
		panic(err)
	}
	return fake.Program{
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			result, err := writer.Apply(ctx, namespace)
			return result.RetryAfter, err
		},
		Namespace: func(object any) string {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			switch o := object.(type) {
			case *corev1.ConfigMap:
				return o.Labels[configmap.Label]
			case *corev1.ResourceQuota:
				return o.Namespace
			}
			return ""
		},
	}
}

// adoptingRancher is one whose process takes over from an old Harvester before it writes.
func adoptingRancher(p *fake.Process) fake.Program {
	program := rancherProcess(p)
	takeover := rancher.Takeover{
		Quotas: p.Client.CoreV1(),
		List:   listed[corev1.ResourceQuota](p.Caches.ResourceQuotas, "resourcequotas"),
		Limits: limitsFrom(p.Client.CoreV1()),
		Ledger: configmap.New(p.Client.CoreV1(), system),
		Seed:   true,
	}
	apply := program.Reconcile
	program.Reconcile = func(ctx context.Context, namespace string) (time.Duration, error) {
		if err := takeover.Adopt(ctx, namespace); err != nil {
			return 0, err
		}
		return apply(ctx, namespace)
	}
	return program
}

// fullNamespace is a cluster with n VMs, and a quota of Rancher's that they fill exactly.
func fullNamespace(t *testing.T, config fake.Config, n int64) *fake.Cluster {
	t.Helper()
	cluster := fake.New(config)
	require.NoError(t, cluster.CreateNamespace("tenant", nil))
	_, err := cluster.Client(fake.RancherUser).CoreV1().ResourceQuotas("tenant").Create(context.Background(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "default", Labels: map[string]string{fake.RancherLabel: "true"}},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
			"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(time.Minute)
	return cluster
}

func drained(cluster *fake.Cluster, node string) func() bool {
	return func() bool {
		for _, vmi := range cluster.Snapshot("tenant").VMIs {
			if vmi.Status.NodeName == node {
				return false
			}
		}
		return true
	}
}

func TestDrainOnFullQuota(t *testing.T) {
	for seed := range uint64(5) {
		cluster := fullNamespace(t, fake.Config{Seed: seed}, 12)
		cluster.Start(user, harvester(options{}))
		cluster.Drain("node01")
		require.True(t, cluster.Until(time.Hour, drained(cluster, "node01")), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}

func TestDrainWithCrashesAndConflicts(t *testing.T) {
	for seed := range uint64(5) {
		cluster := fullNamespace(t, fake.Config{Seed: seed, Slack: 5 * time.Minute}, 12)
		cluster.Inject(cluster.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		cluster.Start(user, harvester(options{}))
		cluster.Drain("node01")
		require.True(t, cluster.Until(3*time.Hour, drained(cluster, "node01")), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}

// With Rancher's write lock in force, the ledger alone is Harvester's, and what Rancher's
// process makes of it is enough.
func TestDrainWithTheWriteLock(t *testing.T) {
	for seed := range uint64(5) {
		cluster := fullNamespace(t, fake.Config{Seed: seed, Lock: fake.RancherUser}, 12)
		cluster.Start(user, harvester(options{ledgerOnly: true}))
		cluster.Start(fake.RancherUser, rancherProcess)
		cluster.Drain("node01")
		require.True(t, cluster.Until(time.Hour, drained(cluster, "node01")), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
		require.Zero(t, cluster.Writes(user, fake.ResourceQuotas))
	}
}

// Without Rancher's shim, the lock refuses every raise. Harvester keeps trying, seldom,
// and does no harm.
func TestWriteLockWithoutRancher(t *testing.T) {
	cluster := fullNamespace(t, fake.Config{Seed: 1, Lock: fake.RancherUser}, 1)
	cluster.Start(user, harvester(options{}))
	require.NoError(t, cluster.Migrate("tenant", "move", "vm0", fake.Outcome{}))
	cluster.Advance(10 * time.Minute)
	require.Equal(t, kubevirtv1.MigrationPending, cluster.Migration("tenant", "move").Status.Phase)
	require.NoError(t, cluster.Abort("tenant", "move"))
	require.Empty(t, cluster.Finish())
}
