package fake_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// library is the whole library in one process: what an embedding controller does for a
// namespace.
func library(p *fake.Process) fake.Program { return libraryWith(p, false) }

// libraryWith is library, with a guard or not.
func libraryWith(p *fake.Process, guard bool) fake.Program {
	program, err := p.Controller(migration.Options{Guard: guard})
	check(err)
	return program
}

// vms are the limits that n VMs fill exactly.
func vms(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

// fullNamespace is a cluster with n VMs, and a quota that they fill exactly.
func fullNamespace(t *testing.T, config fake.Config, n int64) *fake.Cluster {
	t.Helper()
	cluster := fake.New(config)
	require.NoError(t, cluster.CreateNamespace("tenant", vms(n)))
	for i := range n {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(time.Minute)
	return cluster
}

// drained drains the node of some of n VMs on a full quota, on which the library runs. All of them move, no invariant
// is broken on the way, and nothing is left.
func drained(t *testing.T, seed uint64, n int64, disturb func(*fake.Cluster)) {
	cluster := fullNamespace(t, fake.Config{Seed: seed}, n)
	disturb(cluster)
	cluster.Start("embedder", library)
	cluster.Drain("node01")
	require.True(t, cluster.Until(3*time.Hour, func() bool { return moved(cluster, "node01") }), "seed %d", seed)
	require.Empty(t, cluster.Finish(), "seed %d", seed)
}

// With crashes, conflicts, time-outs and refusals at random calls, and without.
func TestDrainWithFaults(t *testing.T) {
	for seed := range uint64(20) {
		drained(t, seed, 12, func(*fake.Cluster) {})
		drained(t, seed, 12, func(cluster *fake.Cluster) {
			cluster.Inject(cluster.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		})
	}
}

// Somebody sets status.hard back to spec.hard all the time.
func TestDrainWithAnAdversary(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 3 * time.Second} {
		drained(t, 1, 6, func(cluster *fake.Cluster) { cluster.ResetLimits(every) })
	}
}

// Without the library the same drain never ends.
func TestDrainWithoutTheLibrary(t *testing.T) {
	cluster := fullNamespace(t, fake.Config{Seed: 1}, 12)
	cluster.Drain("node01")
	require.False(t, cluster.Until(time.Hour, func() bool { return moved(cluster, "node01") }))
}

// Without the quota controller a raise counts all the same, and is taken back.
func TestMigrationWithoutTheQuotaController(t *testing.T) {
	for seed := range uint64(10) {
		cluster := fullNamespace(t, fake.Config{Seed: seed}, 1)
		cluster.Start("embedder", library)
		cluster.StopQuotaController()
		require.NoError(t, cluster.Migrate("tenant", "move", "vm0", fake.Outcome{}))
		cluster.Advance(time.Minute)
		require.Equal(t, kubevirtv1.MigrationSucceeded, cluster.Migration("tenant", "move").Status.Phase, "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}

// The library is gone for good in the middle of a raise. Nothing of it is left when the
// quota controller has recounted.
func TestLibraryThatNeverComesBack(t *testing.T) {
	for seed := range uint64(10) {
		cluster := fullNamespace(t, fake.Config{Seed: seed}, 1)
		before := cluster.Quota("tenant", "tenant")
		process := cluster.Start("embedder", library)
		require.NoError(t, cluster.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
		raised := func() bool { return !quota.Equal(cluster.Quota("tenant", "tenant").Status.Hard, before.Spec.Hard) }
		require.True(t, cluster.Until(time.Minute, raised))
		process.Crash(1000 * time.Hour)
		cluster.Advance(5 * time.Minute)
		after := cluster.Quota("tenant", "tenant")
		require.Equal(t, before.Spec, after.Spec)
		require.Equal(t, before.Annotations, after.Annotations)
		require.Equal(t, before.Status.Hard, after.Status.Hard)
	}
}

// KubeVirt's memory overhead was raised since the VM was started, which no object shows
// before the target pod is there. Its refusal says what it costs.
func TestTargetThatIsLargerThanAnythingShows(t *testing.T) {
	for name, phase := range map[string]kubevirtv1.VirtualMachineInstanceMigrationPhase{
		"with events": kubevirtv1.MigrationSucceeded, "without": kubevirtv1.MigrationPending,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				cluster := fullNamespace(t, fake.Config{Seed: seed}, 1)
				cluster.SetMemoryOverhead(1 << 30)
				cluster.Start("embedder", func(p *fake.Process) fake.Program {
					if name == "without" {
						p.Caches[fake.Events] = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
					}
					return library(p)
				})
				require.NoError(t, cluster.Migrate("tenant", "move", "vm0", fake.Outcome{}))
				cluster.Advance(time.Minute)
				require.Equal(t, phase, cluster.Migration("tenant", "move").Status.Phase, "seed %d", seed)
				violations := cluster.Finish()
				if phase == kubevirtv1.MigrationSucceeded {
					require.Empty(t, violations, "seed %d", seed)
				} else {
					require.Len(t, violations, 1)
					require.Equal(t, fake.Starved, violations[0].Invariant)
				}
			}
		})
	}
}

// A guest grows by a GiB in a quota that has room for its surge, and for its growth, but not
// for both. The target pod comes all the same, and the limits end where they were. Growth
// that does not fit static stays refused.
func TestGuestThatGrows(t *testing.T) {
	for name, test := range map[string]struct {
		guest string
		phase kubevirtv1.VirtualMachineInstanceMigrationPhase
	}{
		"within static": {"2Gi", kubevirtv1.MigrationSucceeded},
		"beyond":        {"4Gi", kubevirtv1.MigrationPending},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				cluster := fullNamespace(t, fake.Config{Seed: seed}, 3)
				require.NoError(t, cluster.DeleteVMI("tenant", "vm2"))
				cluster.Advance(time.Minute)
				static := cluster.Quota("tenant", "tenant")
				cluster.Start("embedder", library)
				require.NoError(t, cluster.HotPlug("tenant", "vm0", 1, resource.MustParse(test.guest)))
				cluster.Advance(time.Minute)
				migrations := cluster.Snapshot("tenant").Migrations
				require.Len(t, migrations, 1)
				require.Equal(t, test.phase, migrations[0].Status.Phase, "seed %d", seed)
				if test.phase == kubevirtv1.MigrationPending {
					cluster.Advance(time.Hour)
					require.NoError(t, cluster.Abort("tenant", migrations[0].Name))
				}
				require.Empty(t, cluster.Finish(), "seed %d", seed)
				rq := cluster.Quota("tenant", "tenant")
				require.Equal(t, static.Annotations, rq.Annotations)
				require.Equal(t, static.Spec, rq.Spec)
			}
		})
	}
}

func moved(cluster *fake.Cluster, node string) bool {
	for _, vmi := range cluster.Snapshot("tenant").VMIs {
		if vmi.Status.NodeName == node {
			return false
		}
	}
	return true
}
