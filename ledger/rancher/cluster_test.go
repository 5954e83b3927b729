package rancher_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// A cluster has a Rancher that is behind the shim, with the applier beside it; a writer of
// the ledger on the virtualization side, which has no right to write the quota; and a
// namespace "tenant" that its VMs fill exactly.
type cluster struct {
	*fake.Cluster
	t       *testing.T
	rancher *fake.Rancher
	updates int  // by Rancher's quota controller, without conflicts
	off     bool // the kill switch
	adopts  bool // what an old Harvester has left
	limits  corev1.ResourceList

	observing, applying *fake.Process
}

const system = "headroom"

func newCluster(t *testing.T, config fake.Config, latency fake.Span, vms int64) *cluster {
	return newClusterThat(t, false, config, latency, vms)
}

func newClusterThat(t *testing.T, adopts bool, config fake.Config, latency fake.Span, vms int64) *cluster {
	config.Lock = fake.RancherUser
	c := &cluster{Cluster: fake.New(config), t: t, adopts: adopts, limits: room(vms)}
	clients := c.Client(fake.RancherUser).CoreV1()
	shim := c.shim(configmap.New(clients, system))
	decorated := shim.Client(clients)
	c.rancher = c.StartRancher(fake.RancherConfig{
		Latency: latency,
		List: func(namespace string) ([]*corev1.ResourceQuota, error) {
			return shim.ShownAll(c.rancher.Quotas(namespace)), nil
		},
		Update: func(ctx context.Context, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
			answer, err := decorated.ResourceQuotas(rq.Namespace).Update(ctx, rq, metav1.UpdateOptions{})
			if err == nil {
				c.updates++
			}
			return answer, err
		},
	})
	require.NoError(t, c.CreateNamespace("tenant", nil))
	require.NoError(t, c.rancher.SetLimit("tenant", c.limits))
	c.Advance(10 * time.Second)
	for i := range vms {
		require.NoError(t, c.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	c.observing = c.Start("virt", c.observer)
	c.applying = c.Start(fake.RancherUser, c.applier)
	c.Advance(time.Minute)
	return c
}

// room is what n VMs are charged.
func room(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

func (c *cluster) shim(record *configmap.Ledger) *rancher.Shim {
	shim, err := rancher.New(rancher.Config{Ledger: record, Disabled: func() bool { return c.off }, Takeover: c.adopts})
	require.NoError(c.t, err)
	return shim
}

// applier is the one in Rancher's process. The ledger and the quotas wake it.
func (c *cluster) applier(p *fake.Process) fake.Program {
	quotas := migration.FromIndexer[corev1.ResourceQuota](p.Caches.ResourceQuotas)
	record := configmap.New(p.Client.CoreV1(), system)
	a, err := c.shim(record).Applier(applier.Config{Quotas: p.Client.CoreV1(), List: quotas, Now: p.Now})
	require.NoError(c.t, err)
	takeover := rancher.Takeover{Quotas: p.Client.CoreV1(), List: quotas, Ledger: record, Seed: true, Limits: func(ctx context.Context, name string) (corev1.ResourceList, error) {
		ns, err := p.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return rancher.Limits(ns)
	}}
	return fake.Program{
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			if c.adopts {
				if err := takeover.Adopt(ctx, namespace); err != nil {
					return 0, err
				}
			}
			result, err := a.Apply(ctx, namespace)
			return result.RetryAfter, err
		},
		Namespace: func(o any) string {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			switch o := o.(type) {
			case *corev1.ConfigMap:
				return o.Labels[configmap.Label]
			case *corev1.ResourceQuota:
				return o.Namespace
			default:
				return ""
			}
		},
	}
}

// observer writes the ledger, and wakes KubeVirt where it sleeps.
func (c *cluster) observer(p *fake.Process) fake.Program {
	caches := migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](p.Caches.Migrations),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](p.Caches.VMIs),
		Pods:        migration.FromIndexer[corev1.Pod](p.Caches.Pods),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](p.Caches.LimitRanges),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](p.Caches.Claims),
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](p.Caches.ResourceQuotas)
	observer := migration.Observer{Caches: caches, Ledger: configmap.New(p.Client.CoreV1(), system), Now: p.Now}
	nudger := migration.Nudger{Caches: caches, Quotas: quotas, Patch: p.PatchMigration, Now: p.Now}
	return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
		if err := observer.Observe(ctx, namespace); err != nil {
			return 0, err
		}
		return nudger.Nudge(ctx, namespace)
	}}
}

// quota is that of the tenant; nil if there is none.
func (c *cluster) quota() *corev1.ResourceQuota {
	if quotas := c.rancher.Quotas("tenant"); len(quotas) > 0 {
		return c.Quota("tenant", quotas[0].Name)
	}
	return nil
}

// until lets time pass until done, but an hour at most.
func (c *cluster) until(done func() bool) {
	c.t.Helper()
	require.True(c.t, c.Until(time.Hour, done))
}

func (c *cluster) limit(name corev1.ResourceName) string {
	limit := c.quota().Spec.Hard[name]
	return limit.String()
}

func (c *cluster) isRaised() bool {
	return c.quota() != nil && c.quota().Annotations[applier.StaticAnnotation] != ""
}

// finish expects that nothing was broken, and that nothing is left.
func (c *cluster) finish() {
	c.t.Helper()
	require.Empty(c.t, c.Finish())
	require.Equal(c.t, amounts(c.limits), amounts(c.quota().Spec.Hard))
	require.Empty(c.t, c.quota().Annotations)
}

func (c *cluster) moved(node string) bool {
	for _, vmi := range c.Snapshot("tenant").VMIs {
		if vmi.Status.NodeName == node {
			return false
		}
	}
	return true
}

var near, far = fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, fake.Span{Min: 600 * time.Millisecond, Max: 600 * time.Millisecond}

// A drain of twelve on a full quota while the agent restarts every two seconds: Rancher
// writes nothing at all.
func TestNoWriteThroughAnyNumberOfRestarts(t *testing.T) {
	for name, latency := range map[string]fake.Span{"near": near, "far": far} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, fake.Config{Seed: 7}, latency, 12)
			before := c.Snapshot("tenant").Namespace.ResourceVersion
			c.Drain("node01")
			raises, restarts := 0, 0
			for !c.moved("node01") && restarts < 1000 {
				c.rancher.Restart()
				c.rancher.Touch("tenant")
				restarts++
				c.Advance(2 * time.Second)
				if c.isRaised() {
					raises++
				}
			}
			require.True(t, c.moved("node01"))
			require.Positive(t, raises)
			require.Zero(t, c.updates)
			require.Equal(t, before, c.Snapshot("tenant").Namespace.ResourceVersion, "the accounting of the project is untouched")
			c.finish()
			require.Zero(t, c.updates)
		})
	}
}

// The admin changes the limit while a migration runs.
func TestAdminsEditFlowsThrough(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 3}, near, 2)
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	c.Advance(10 * time.Second)
	for _, vms := range []int64{5, 1, 2, 7} { // of which 1 is below use
		c.limits = room(vms)
		require.NoError(t, c.rancher.SetLimit("tenant", c.limits))
		before := c.updates
		c.until(func() bool { return c.updates > before })
		static, err := applier.Static(c.quota())
		require.NoError(t, err)
		require.Equal(t, amounts(c.limits), amounts(static))
		want := room(max(vms, 2) + 1)["limits.cpu"]
		require.Equal(t, want.String(), c.limit("limits.cpu"))
		c.Advance(time.Minute)
		require.Equal(t, want.String(), c.limit("limits.cpu"))
	}
	c.limits["pods"] = resource.MustParse("30") // a key is added
	require.NoError(t, c.rancher.SetLimit("tenant", c.limits))
	c.until(func() bool { return c.limit("pods") == "31" })
	delete(c.limits, "limits.cpu") // and one taken away
	require.NoError(t, c.rancher.SetLimit("tenant", c.limits))
	c.until(func() bool { _, has := c.quota().Spec.Hard["limits.cpu"]; return !has })
	require.Equal(t, 6, c.updates)
	require.NoError(t, c.Abort("tenant", "move"))
	c.Advance(time.Minute)
	c.finish()
}

// The quota is taken away and given back while a migration runs.
func TestQuotaIsDeletedAndRecreated(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 4}, near, 2)
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	c.Advance(10 * time.Second)
	require.NoError(t, c.rancher.SetLimit("tenant", nil))
	c.until(func() bool { return c.quota() == nil })
	c.Advance(10 * time.Second)
	require.NoError(t, c.rancher.SetLimit("tenant", c.limits))
	c.until(func() bool { return c.quota() != nil })
	c.until(c.isRaised)
	require.Equal(t, "3045m", c.limit("limits.cpu"))
	require.NoError(t, c.Abort("tenant", "move"))
	c.Advance(time.Minute)
	c.finish()
}

// A second applier with the same rights does no harm, and neither do crashes and conflicts.
func TestTwoReplicasWithFaults(t *testing.T) {
	for seed := range uint64(5) {
		c := newCluster(t, fake.Config{Seed: seed, Slack: 5 * time.Minute}, near, 6)
		second := c.Start(fake.RancherUser, c.applier)
		second.Lag(fake.ResourceQuotas, fake.Span{Min: time.Second, Max: 2 * time.Second})
		c.Inject(c.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		c.Drain("node01")
		for i := 0; !c.moved("node01") && i < 1000; i++ {
			c.rancher.Restart()
			c.Advance(5 * time.Second)
		}
		require.True(t, c.moved("node01"), "seed %d", seed)
		c.finish()
	}
}

// Switched off in the middle, the next sync brings the static limits back, and no
// annotation stays. Switched on again, the raise is back.
func TestKillSwitchInTheMiddle(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 5}, near, 2)
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	c.Advance(10 * time.Second)
	c.off = true
	c.rancher.Touch("tenant")
	c.until(func() bool { return !c.isRaised() })
	require.Equal(t, amounts(c.limits), amounts(c.quota().Spec.Hard))
	require.Empty(t, c.quota().Annotations)
	require.Equal(t, 1, c.updates)
	c.Advance(10 * time.Minute)
	require.Equal(t, amounts(c.limits), amounts(c.quota().Spec.Hard))
	require.Equal(t, 1, c.updates)

	c.off = false
	c.Advance(time.Minute) // Rancher sees its own limits
	require.NoError(t, c.Migrate("tenant", "again", "vm1", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	require.NoError(t, c.Abort("tenant", "move"))
	require.NoError(t, c.Abort("tenant", "again"))
	c.Advance(time.Minute)
	c.finish()
}

// Without the shim the same restarts reset the raise.
func TestRestartsResetWithoutTheShim(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 7}, near, 2)
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	c.Advance(10 * time.Second)
	c.off = true
	c.rancher.Restart()
	c.Advance(10 * time.Second)
	require.Equal(t, 1, c.updates)
}
