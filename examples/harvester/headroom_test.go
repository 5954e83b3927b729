package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

const user = "system:serviceaccount:harvester-system:harvester"

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

// current is what this example makes of a process of the simulated cluster.
func current(p *fake.Process) fake.Program {
	caches := migration.Caches{
		Migrations:  listed[kubevirtv1.VirtualMachineInstanceMigration](p.Caches[fake.Migrations], "virtualmachineinstancemigrations"),
		VMIs:        listed[kubevirtv1.VirtualMachineInstance](p.Caches[fake.VMIs], "virtualmachineinstances"),
		Pods:        listed[corev1.Pod](p.Caches[fake.Pods], "pods"),
		LimitRanges: listed[corev1.LimitRange](p.Caches[fake.LimitRanges], "limitranges"),
		PVCs:        listed[corev1.PersistentVolumeClaim](p.Caches[fake.Claims], "persistentvolumeclaims"),
		Events:      listed[corev1.Event](p.Caches[fake.Events], "events"),
		Namespace:   migration.FromStore(p.Caches[fake.Namespaces]),
	}
	headroom, err := newHeadroom(p.Client, migration.Options{
		Caches:   &caches,
		Quotas:   listed[corev1.ResourceQuota](p.Caches[fake.ResourceQuotas], "resourcequotas"),
		Patch:    p.PatchMigration,
		Enqueue:  p.Enqueue,
		Recorder: &record.FakeRecorder{},
		Now:      p.Now,
	})
	if err != nil {
		panic(err)
	}
	return fake.Program{Reconcile: headroom.Reconcile, Namespace: migration.NamespaceOf}
}

// perVM is what one VM of the tests is charged.
var perVM = corev1.ResourceList{"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("2773714688")}

// times returns what n VMs are charged.
func times(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

// A tenant is a cluster with one namespace, whose quota is Rancher's.
type tenant struct {
	*fake.Cluster
	t       *testing.T
	rancher *model.Simulated
}

// newTenant returns a tenant with n VMs that fill the quota exactly.
func newTenant(t *testing.T, config fake.Config, n int64) *tenant {
	t.Helper()
	u := &tenant{Cluster: fake.New(config), t: t}
	u.rancher = model.Simulate(u.Cluster, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, nil)
	require.NoError(t, u.CreateNamespace("tenant", nil))
	require.NoError(t, u.rancher.SetLimit("tenant", times(n)))
	u.Advance(time.Minute)
	for i := range n {
		require.NoError(t, u.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	u.Advance(time.Minute)
	return u
}

func (u *tenant) quota() *corev1.ResourceQuota {
	u.t.Helper()
	quotas := try.Must(u.Client("kubectl").CoreV1().ResourceQuotas("tenant").List(context.Background(), metav1.ListOptions{}))(u.t)
	require.Len(u.t, quotas.Items, 1)
	return &quotas.Items[0]
}

func (u *tenant) phase(name string) kubevirtv1.VirtualMachineInstanceMigrationPhase {
	if m := u.Migration("tenant", name); m != nil {
		return m.Status.Phase
	}
	return ""
}

// hang starts the program, and a migration that hangs.
func (u *tenant) hang() {
	u.t.Helper()
	u.Start(user, current)
	require.NoError(u.t, u.Migrate("tenant", "first", "vm0", fake.Outcome{Hang: true}))
	require.True(u.t, u.Until(time.Minute, func() bool { return u.phase("first") == kubevirtv1.MigrationRunning }))
}

// edit writes the annotations and the static limits of the quota.
func (u *tenant) edit(as string, annotations map[string]string, hard corev1.ResourceList) {
	u.t.Helper()
	rq := u.quota()
	rq.Annotations, rq.Spec.Hard = annotations, hard
	try.Must(u.Client(as).CoreV1().ResourceQuotas("tenant").Update(context.Background(), rq, metav1.UpdateOptions{}))(u.t)
}

// enforces says that the enforced limits are those of n VMs.
func (u *tenant) enforces(n int64) {
	u.t.Helper()
	require.True(u.t, quota.Equal(times(n), u.quota().Status.Hard), "%v", u.quota().Status.Hard)
}

func (u *tenant) drained(node string) func() bool {
	return func() bool {
		for _, vmi := range u.Snapshot("tenant").VMIs {
			if vmi.Status.NodeName == node {
				return false
			}
		}
		return true
	}
}

// The write lock, and no lock: it makes no difference.
var locks = map[string]string{"unlocked": "", "locked": fake.RancherUser}

func TestDrainOnFullQuota(t *testing.T) {
	for name, lock := range locks {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				u := newTenant(t, fake.Config{Seed: seed, Lock: lock}, 12)
				u.Start(user, current)
				u.Drain("node01")
				require.True(t, u.Until(time.Hour, u.drained("node01")), "seed %d", seed)
				require.Empty(t, u.Finish(), "seed %d", seed)
			}
		})
	}
}

func TestDrainWithCrashesAndConflicts(t *testing.T) {
	for seed := range uint64(5) {
		u := newTenant(t, fake.Config{Seed: seed, Lock: fake.RancherUser}, 12)
		u.Inject(u.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		u.Start(user, current)
		u.Drain("node01")
		require.True(t, u.Until(3*time.Hour, u.drained("node01")), "seed %d", seed)
		require.Empty(t, u.Finish(), "seed %d", seed)
	}
}

// It writes nothing but the status of quotas.
func TestWritesNothingElse(t *testing.T) {
	u := newTenant(t, fake.Config{Seed: 1}, 2)
	u.Start(user, current)
	require.NoError(t, u.Migrate("tenant", "move", "vm0", fake.Outcome{}))
	require.True(t, u.Until(time.Hour, func() bool { return u.phase("move") == kubevirtv1.MigrationSucceeded }))
	require.Empty(t, u.Finish())
	require.NotZero(t, u.StatusWrites(user, fake.ResourceQuotas))
	require.Equal(t, u.StatusWrites(user, fake.ResourceQuotas), u.Writes(user, fake.ResourceQuotas))
	require.Zero(t, u.Writes(user, fake.ConfigMaps))
}
