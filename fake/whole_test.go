package fake_test

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/migration"
)

// library is the whole library in one process: what an embedding controller does for a
// namespace.
func library(p *fake.Process) fake.Program {
	caches := migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](p.Caches.Migrations),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](p.Caches.VMIs),
		Pods:        migration.FromIndexer[corev1.Pod](p.Caches.Pods),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](p.Caches.LimitRanges),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](p.Caches.Claims),
		Events:      migration.FromIndexer[corev1.Event](p.Caches.Events),
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](p.Caches.ResourceQuotas)
	record := memory.New()
	observer := migration.Observer{Caches: caches, Ledger: record, Now: p.Now}
	nudger := migration.Nudger{Caches: caches, Quotas: quotas, Patch: p.PatchMigration, Now: p.Now}
	writer, err := applier.New(applier.Config{Ledger: record, Quotas: p.Client.CoreV1(), List: quotas, Now: p.Now})
	check(err)
	return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
		if err := observer.Observe(ctx, namespace); err != nil {
			return 0, err
		}
		applied, err := writer.Apply(ctx, namespace)
		if err != nil {
			return applied.RetryAfter, err
		}
		again, err := nudger.Nudge(ctx, namespace)
		return earlier(again, applied.RetryAfter), err
	}}
}

// earlier returns the shorter of two pauses, of which zero is none.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}

// fullNamespace is a cluster with n VMs, and a quota that they fill exactly.
func fullNamespace(t *testing.T, config fake.Config, n int64) *fake.Cluster {
	t.Helper()
	cluster := fake.New(config)
	require.NoError(t, cluster.CreateNamespace("tenant", corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}))
	for i := range n {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(time.Minute)
	return cluster
}

// The node of some of twelve VMs is drained on a full quota. All of them move, no
// invariant is broken on the way, and nothing is left.
func TestDrainWithTheWholeLibrary(t *testing.T) {
	for seed := range uint64(20) {
		cluster := fullNamespace(t, fake.Config{Seed: seed}, 12)
		cluster.Start("embedder", library)
		cluster.Drain("node01")
		require.True(t, cluster.Until(time.Hour, func() bool { return moved(cluster, "node01") }), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}

// Without the library the same drain never ends.
func TestDrainWithoutTheLibrary(t *testing.T) {
	cluster := fullNamespace(t, fake.Config{Seed: 1}, 12)
	cluster.Drain("node01")
	require.False(t, cluster.Until(time.Hour, func() bool { return moved(cluster, "node01") }))
}

// The same with crashes, conflicts, time-outs and refusals at random calls.
func TestDrainWithFaults(t *testing.T) {
	for seed := range uint64(20) {
		cluster := fullNamespace(t, fake.Config{Seed: seed, Slack: 5 * time.Minute}, 12)
		cluster.Inject(cluster.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		cluster.Start("embedder", library)
		cluster.Drain("node01")
		require.True(t, cluster.Until(3*time.Hour, func() bool { return moved(cluster, "node01") }), "seed %d", seed)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
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
						p.Caches.Events = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
					}
					return library(p)
				})
				require.NoError(t, cluster.Migrate("tenant", "move", "vm0", fake.Outcome{}))
				cluster.Advance(time.Minute)
				require.Equal(t, phase, cluster.Migration("tenant", "move").Status.Phase, "seed %d", seed)
				if phase == kubevirtv1.MigrationSucceeded {
					require.Empty(t, cluster.Finish(), "seed %d", seed)
				} else {
					require.Equal(t, fake.Starved, cluster.Finish()[0].Invariant)
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
				for name, limit := range static.Spec.Hard {
					hard := rq.Spec.Hard[name]
					require.Equal(t, limit.String(), hard.String())
				}
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
