package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
)

// A reader is the cache of a manager in the simulated cluster.
type reader struct {
	client.Reader
	caches fake.Caches
}

func (r reader) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	var indexer toolscache.Indexer
	switch list.(type) {
	case *corev1.ResourceQuotaList:
		indexer = r.caches[fake.ResourceQuotas]
	case *corev1.LimitRangeList:
		indexer = r.caches[fake.LimitRanges]
	case *corev1.PodList:
		indexer = r.caches[fake.Pods]
	case *corev1.PersistentVolumeClaimList:
		indexer = r.caches[fake.Claims]
	case *kubevirtv1.VirtualMachineInstanceList:
		indexer = r.caches[fake.VMIs]
	case *kubevirtv1.VirtualMachineInstanceMigrationList:
		indexer = r.caches[fake.Migrations]
	case *corev1.EventList:
		indexer = r.caches[fake.Events]
	}
	var o client.ListOptions
	found, err := indexer.ByIndex(toolscache.NamespaceIndex, o.ApplyOptions(options).Namespace)
	if err != nil {
		return err
	}
	objects := make([]runtime.Object, len(found))
	for i := range found {
		objects[i] = found[i].(runtime.Object)
	}
	return meta.SetList(list, objects)
}

var tenants = []string{"tenant", "other"}

// drained drains a node of a cluster in which the quotas of all tenants are full, and
// returns it at rest. Turns is how often a tenant had its turn because of another one.
func drained(t *testing.T, seed uint64, run bool) (cluster *fake.Cluster, turns int) {
	t.Helper()
	const machines = 6
	cluster = fake.New(fake.Config{Seed: seed})
	for _, tenant := range tenants {
		require.NoError(t, cluster.CreateNamespace(tenant, corev1.ResourceList{
			"limits.cpu":    *resource.NewMilliQuantity(1015*machines, resource.DecimalSI),
			"limits.memory": *resource.NewQuantity(2773714688*machines, resource.BinarySI),
		}))
		for i := range machines {
			require.NoError(t, cluster.CreateVMI(fake.NewVMI(tenant, fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
		}
	}
	cluster.Advance(10 * time.Minute) // kube-controller-manager has recounted: the quotas are full
	if run {
		cluster.Start("runtime", func(p *fake.Process) fake.Program {
			r, err := newReconciler(reader{caches: p.Caches}, p.Client, migration.Options{
				Patch: p.PatchMigration, Now: p.Now, Recorder: &record.FakeRecorder{},
			})
			require.NoError(t, err)
			return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
				result, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKey{Name: namespace}})
				for ; len(r.turns) > 0; turns++ {
					p.Enqueue((<-r.turns).Object.GetName())
				}
				return result.RequeueAfter, err
			}}
		})
	}
	cluster.Drain("node01")
	cluster.Advance(time.Hour)
	return cluster, turns
}

func on(cluster *fake.Cluster, node string) (vmis int) {
	for _, tenant := range tenants {
		for _, vmi := range cluster.Snapshot(tenant).VMIs {
			if vmi.Status.NodeName == node {
				vmis++
			}
		}
	}
	return vmis
}

func TestDrain(t *testing.T) {
	cluster, _ := drained(t, 1, false)
	require.Positive(t, on(cluster, "node01"), "without the reconciler the drain must not end")
	all := 0
	for seed := range uint64(10) {
		cluster, turns := drained(t, seed, true)
		require.Zero(t, on(cluster, "node01"), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
		for _, tenant := range tenants {
			rq := cluster.Quota(tenant, tenant)
			require.Equal(t, rq.Spec.Hard, rq.Status.Hard)
			require.Empty(t, rq.Annotations)
		}
		all += turns
	}
	require.Positive(t, all, "one tenant's migrations make way for another's")
}

// An error of any cache reaches controller-runtime, which then tries again.
func TestErrors(t *testing.T) {
	_, err := newReconciler(failing{}, nil, migration.Options{})
	require.ErrorContains(t, err, "a controller needs")

	cluster := fake.New(fake.Config{})
	r, err := newReconciler(failing{}, cluster.Client("test"), migration.Options{
		Recorder: &record.FakeRecorder{}, Patch: func(context.Context, string, string, []byte) error { return nil },
	})
	require.NoError(t, err)
	_, err = r.Reconcile(t.Context(), reconcile.Request{})
	require.ErrorIs(t, err, errUnsynced)
}

var errUnsynced = errors.New("the cache is not synced")

type failing struct{ client.Reader }

func (failing) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errUnsynced
}

// What main builds is accepted by controller-runtime, without a cluster.
func TestWiring(t *testing.T) {
	options, err := managerOptions()
	require.NoError(t, err)
	options.Metrics.BindAddress = "0"
	options.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
		return testrestmapper.TestOnlyStaticRESTMapper(options.Scheme), nil
	}
	mgr, err := ctrl.NewManager(&rest.Config{Host: "http://127.0.0.1:1"}, options)
	require.NoError(t, err)
	require.NoError(t, SetupWithManager(mgr, migration.Options{Recorder: &record.FakeRecorder{}}))
}
