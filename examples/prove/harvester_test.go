package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota/amounts"
)

// The tests of this file are the ways in which raising limits by events is known to fail,
// H1 to H20. Each shows that byEvents fails in this way, so that the scenario is one, and
// that the library does not.

// A scenario is played twice: with byEvents, which breaks an invariant, and with the
// library, which does not.
type scenario struct {
	config fake.Config
	vms    int                 // in the namespace, whose quota they fill exactly
	static corev1.ResourceList // nil: so
	setup  func(t *testing.T, c *fake.Cluster)
	old    byEvents
	breaks fake.Invariant
	before func(t *testing.T, c *fake.Cluster) // the process starts
	act    func(t *testing.T, c *fake.Cluster, p *fake.Process)
	// after is asked about the run with the library, before everything ends.
	after func(t *testing.T, c *fake.Cluster)
}

func (s scenario) play(t *testing.T) {
	if s.static == nil {
		s.static = exactly(int64(s.vms))
	}
	if s.old.static == nil {
		s.old.static = s.static
	}
	if s.old.quota == "" {
		s.old.quota = "tenant"
	}
	t.Run("by events", func(t *testing.T) {
		c := s.run(t, s.old.program)
		if s.breaks == fake.Starved {
			c.Advance(time.Second)
			require.False(t, c.Until(patience, func() bool { return len(c.Starving()) == 0 }))
			return
		}
		require.Contains(t, invariants(c.Finish()), s.breaks)
	})
	t.Run("headroom", func(t *testing.T) {
		for seed := range uint64(5) {
			s.config.Seed = seed
			c := s.run(t, embedding{}.program)
			if s.after != nil {
				s.after(t, c)
			}
			require.Empty(t, c.Finish(), "seed %d", seed)
		}
	})
	t.Run("headroom beside it", func(t *testing.T) {
		act := s.act
		s.act = func(t *testing.T, c *fake.Cluster, p *fake.Process) {
			c.Start(old, s.old.program)
			c.Advance(time.Second)
			act(t, c, p)
		}
		c := s.run(t, embedding{}.program)
		all := c.Finish()
		require.Less(t, len(all), 10, "as many as are remembered")
		require.Empty(t, slices.DeleteFunc(all, ofOld))
	})
}

// patience is a little more than KubeVirt's longest back-off.
const patience = 20 * time.Minute

// old is the user of the process by events where headroom is beside it.
const old = "by-events"

// ofOld reports whether the process by events has broken the invariant: it writes spec.hard,
// and leaves annotations.
func ofOld(v fake.Violation) bool {
	return strings.HasPrefix(v.Detail, old+" ") || v.Invariant == fake.Leftover && strings.HasPrefix(v.Detail, "annotations of ")
}

func (s scenario) run(t *testing.T, program func(*fake.Process) fake.Program) *fake.Cluster {
	c := fake.New(s.config)
	if s.setup != nil {
		s.setup(t, c)
	} else {
		require.NoError(t, c.CreateNamespace("tenant", s.static))
	}
	for i := range s.vms {
		require.NoError(t, c.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	c.Advance(time.Minute)
	if s.before != nil {
		s.before(t, c)
		c.Advance(time.Minute)
	}
	p := c.Start("controller", program)
	c.Advance(time.Second)
	s.act(t, c, p)
	return c
}

// invariants are those that are broken.
func invariants(violations []fake.Violation) (broken []fake.Invariant) {
	for _, v := range violations {
		broken = append(broken, v.Invariant)
	}
	return broken
}

// exactly is what n VMs of one core and 1Gi are charged.
func exactly(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

func limits(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func createQuota(t *testing.T, c *fake.Cluster, name string, hard corev1.ResourceList) {
	_, err := c.Client("admin").CoreV1().ResourceQuotas("tenant").Create(context.Background(),
		&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// annotate does to a quota what an admin does.
func annotate(t *testing.T, c *fake.Cluster, name, key, value string) {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	_, err := c.Client("admin").CoreV1().ResourceQuotas("tenant").Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
}

func migrate(t *testing.T, c *fake.Cluster, name, vmi string, outcome fake.Outcome) {
	require.NoError(t, c.Migrate("tenant", name, vmi, outcome))
}

func phaseOf(c *fake.Cluster, name string) kubevirtv1.VirtualMachineInstanceMigrationPhase {
	if m := c.Migration("tenant", name); m != nil {
		return m.Status.Phase
	}
	return ""
}

// awaitPhase lets time pass until a migration is in a phase.
func awaitPhase(t *testing.T, c *fake.Cluster, name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	require.True(t, c.Until(2*time.Minute, func() bool { return phaseOf(c, name) == phase }), "%s is %s, not %s", name, phaseOf(c, name), phase)
}

// requireMoved expects that migrations have succeeded.
func requireMoved(names ...string) func(t *testing.T, c *fake.Cluster) {
	return func(t *testing.T, c *fake.Cluster) {
		c.Advance(time.Minute)
		for _, name := range names {
			require.Equal(t, kubevirtv1.MigrationSucceeded, phaseOf(c, name), name)
		}
	}
}

// Where nothing is in its way, raising by events works. So it is not a straw man.
func TestByEventsWorks(t *testing.T) {
	for _, adds := range []bool{false, true} {
		s := scenario{vms: 1, static: exactly(1), old: byEvents{static: exactly(1), quota: "tenant", adds: adds}}
		s.act = func(t *testing.T, c *fake.Cluster, _ *fake.Process) { migrate(t, c, "m", "vm0", fake.Outcome{}) }
		c := s.run(t, s.old.program)
		requireMoved("m")(t, c)
		require.Subset(t, []fake.Invariant{fake.WroteSpec}, invariants(c.Finish()), "which it has to")
	}
}

// When the end of the migration is heard of, there is no VMI any more.
func TestH01VMIDeleted(t *testing.T) {
	scenario{vms: 1, breaks: fake.Leftover, act: func(t *testing.T, c *fake.Cluster, p *fake.Process) {
		migrate(t, c, "m", "vm0", fake.Outcome{Hang: true})
		awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
		p.Lag(fake.Migrations, fake.Span{Min: 10 * time.Second, Max: 10 * time.Second})
		require.NoError(t, c.DeleteVMI("tenant", "vm0"))
		c.Advance(time.Minute)
	}}.play(t)
}

func TestH02MigrationDeletedUnseen(t *testing.T) {
	scenario{vms: 1, breaks: fake.Leftover, act: func(t *testing.T, c *fake.Cluster, p *fake.Process) {
		migrate(t, c, "m", "vm0", fake.Outcome{Hang: true})
		awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
		p.Crash(time.Minute)
		require.NoError(t, c.Abort("tenant", "m"))
		c.Advance(2 * time.Minute)
		require.Nil(t, c.Migration("tenant", "m"))
	}}.play(t)
}

func TestH03OldMigrationIsReplayedAfterARestart(t *testing.T) {
	scenario{vms: 1, breaks: fake.Leftover, act: func(t *testing.T, c *fake.Cluster, p *fake.Process) {
		migrate(t, c, "a", "vm0", fake.Outcome{})
		awaitPhase(t, c, "a", kubevirtv1.MigrationSucceeded)
		c.Advance(time.Minute)
		migrate(t, c, "b", "vm0", fake.Outcome{Hang: true})
		awaitPhase(t, c, "b", kubevirtv1.MigrationRunning)
		p.Crash(time.Second)
	}}.play(t)
}

func TestH04TwoQuotas(t *testing.T) {
	for _, first := range []string{"tenant", "another"} {
		t.Run("the one that is known is "+first, func(t *testing.T) {
			scenario{
				vms: 1, breaks: fake.Starved, old: byEvents{quota: first},
				setup: func(t *testing.T, c *fake.Cluster) {
					require.NoError(t, c.CreateNamespace("tenant", exactly(1)))
					createQuota(t, c, "another", exactly(1))
					c.Advance(time.Second) // see CreateNamespace
				},
				act:   func(t *testing.T, c *fake.Cluster, _ *fake.Process) { migrate(t, c, "m", "vm0", fake.Outcome{}) },
				after: requireMoved("m"),
			}.play(t)
		})
	}
}

func TestH05QuotaIsDeletedAndRecreated(t *testing.T) {
	scenario{vms: 2, breaks: fake.Starved, after: requireMoved("m"), act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
		migrate(t, c, "hangs", "vm0", fake.Outcome{Hang: true})
		awaitPhase(t, c, "hangs", kubevirtv1.MigrationRunning)
		require.NoError(t, deleteQuota(c, "tenant", "tenant"))
		c.Advance(time.Second)
		createQuota(t, c, "tenant", exactly(2))
		c.Advance(time.Second)
		migrate(t, c, "m", "vm1", fake.Outcome{})
	}}.play(t)
}

func TestH06OtherResources(t *testing.T) {
	persistent := func() *kubevirtv1.VirtualMachineInstance {
		vmi := fake.NewVMI("tenant", "vm", 1, resource.MustParse("1Gi"))
		yes := true
		vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes}
		return vmi
	}
	for name, full := range map[corev1.ResourceName]string{
		"requests.cpu": "105m", "requests.memory": "1391857344", "requests.ephemeral-storage": "50M", "pods": "1", "count/pods": "1",
		"requests.devices.kubevirt.io/kvm": "1", "requests.storage": "10Mi", "persistentvolumeclaims": "1",
	} {
		t.Run(strings.ReplaceAll(string(name), "/", " "), func(t *testing.T) {
			static := limits(string(name), full)
			if name == "count/pods" {
				static = limits(string(name), "2") // a terminal pod counts
			}
			scenario{
				static: static, breaks: fake.Starved,
				old: byEvents{surge: func(*kubevirtv1.VirtualMachineInstance) corev1.ResourceList { return onlyLimits(exactly(1)) }},
				setup: func(t *testing.T, c *fake.Cluster) {
					require.NoError(t, c.CreateNamespace("tenant", static))
					c.Advance(time.Second)
					require.NoError(t, c.CreateVMI(persistent()))
				},
				act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
					require.Equal(t, kubevirtv1.Running, c.VMI("tenant", "vm").Status.Phase)
					if name == "count/pods" {
						require.NoError(t, tenant{Cluster: c, namespace: "tenant"}.createPod(limits("cpu", "1m", "memory", "1")))
					}
					migrate(t, c, "m", "vm", fake.Outcome{})
				},
				after: requireMoved("m"),
			}.play(t)
		})
	}
}

func TestH07NoLimits(t *testing.T) {
	scenario{vms: 1, breaks: fake.Starved, old: byEvents{surge: estimated}, after: requireMoved("m"), act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
		require.Empty(t, c.VMI("tenant", "vm0").Spec.Domain.Resources.Limits, "KubeVirt sets them")
		migrate(t, c, "m", "vm0", fake.Outcome{})
	}}.play(t)
}

// The sidecar of a pod is no part of the estimate: 6045m are needed, and 6030m given.
func TestH08SidecarOnAnExactFit(t *testing.T) {
	scenario{
		static: limits("limits.cpu", "4030m"), breaks: fake.Starved, old: byEvents{surge: estimated}, after: requireMoved("m"),
		setup: func(t *testing.T, c *fake.Cluster) {
			require.NoError(t, c.CreateNamespace("tenant", limits("limits.cpu", "4030m")))
			c.Advance(time.Second)
			for _, name := range []string{"a", "b"} {
				vmi := fake.NewVMI("tenant", name, 2, resource.MustParse("1Gi"))
				vmi.Spec.Domain.Resources.Limits = limits("cpu", "2")
				require.NoError(t, c.CreateVMI(vmi))
			}
		},
		act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			used := c.Quota("tenant", "tenant").Status.Used["limits.cpu"]
			require.Equal(t, "4030m", used.String())
			migrate(t, c, "m", "a", fake.Outcome{})
		},
	}.play(t)
}

// Static was lowered below what runs, and two migrations are blocked at once.
func TestH09TwoBlockedOverStatic(t *testing.T) {
	scenario{
		vms: 2, breaks: fake.Starved, after: requireMoved("a", "b"), old: byEvents{static: exactly(1)},
		before: func(t *testing.T, c *fake.Cluster) {
			require.NoError(t, c.EditQuota("tenant", "tenant", func(hard corev1.ResourceList) { maps.Copy(hard, exactly(1)) }))
		},
		act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			migrate(t, c, "a", "vm0", fake.Outcome{})
			migrate(t, c, "b", "vm1", fake.Outcome{})
		},
	}.play(t)
}

// The source pod of a migration that has succeeded hangs.
func TestH10SourceStillCounts(t *testing.T) {
	scenario{vms: 2, breaks: fake.Starved, after: requireMoved("b"), act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
		migrate(t, c, "a", "vm0", fake.Outcome{Linger: 30 * time.Minute})
		awaitPhase(t, c, "a", kubevirtv1.MigrationSucceeded)
		c.Advance(time.Second)
		migrate(t, c, "b", "vm1", fake.Outcome{})
	}}.play(t)
}

// Fifty migrations are pending, KubeVirt runs two of them at a time, and a tenant takes what
// lies open for the others.
func TestH11DrainOfFifty(t *testing.T) {
	drain := func(program func(*fake.Process) fake.Program) (stolen resource.Quantity) {
		s := scenario{vms: 50, static: exactly(50), config: fake.Config{Nodes: 2}, act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			for i := range 50 {
				migrate(t, c, fmt.Sprint("m", i), fmt.Sprint("vm", i), fake.Outcome{Hang: i < 4})
			}
			c.Advance(10 * time.Second)
			before := c.Quota("tenant", "tenant").Status.Used["limits.memory"]
			if err := (tenant{Cluster: c, namespace: "tenant"}).steal(); err != nil {
				t.Logf("there is nothing to steal: %v", err)
			}
			stolen = amounts.Minus(c.Quota("tenant", "tenant").Status.Used["limits.memory"], before)
		}}
		s.run(t, program)
		return stolen
	}
	memory := func(n int64) resource.Quantity { return exactly(n)["limits.memory"] }
	old, now := drain(byEvents{static: exactly(50), quota: "tenant"}.program), drain(embedding{}.program)
	require.Positive(t, old.Cmp(memory(36)), "what lay open for most of fifty: %s", old.String())
	require.LessOrEqual(t, now.Cmp(memory(2)), 0, "no more than KubeVirt can start beside the four that hang: %s", now.String())
}

func TestH12SwitchedOffInTheMiddle(t *testing.T) {
	scenario{vms: 1, breaks: fake.Leftover, act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
		migrate(t, c, "m", "vm0", fake.Outcome{})
		awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
		annotate(t, c, "tenant", skipAnnotation, "true")
		annotate(t, c, "tenant", applier.DisabledAnnotation, "true")
	}, after: requireMoved("m")}.play(t)
}

// The annotation of the namespace, from which the limits were taken, is gone.
func TestH13LimitsAreGoneInTheMiddle(t *testing.T) {
	namespaceAnnotation := func(t *testing.T, c *fake.Cluster, value string) {
		patch := `{"metadata":{"annotations":{"` + rancher.LimitsAnnotation + `":` + value + `}}}`
		_, err := c.Client("admin").CoreV1().Namespaces().Patch(context.Background(), "tenant", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	scenario{
		vms: 1, breaks: fake.Leftover, old: byEvents{asked: true}, after: requireMoved("m"),
		setup: func(t *testing.T, c *fake.Cluster) {
			require.NoError(t, c.CreateNamespace("tenant", exactly(1)))
			namespaceAnnotation(t, c, `"{\"limit\":{\"limitsCpu\":\"1015m\",\"limitsMemory\":\"2773714688\"}}"`)
		},
		act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			migrate(t, c, "m", "vm0", fake.Outcome{})
			awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
			namespaceAnnotation(t, c, "null")
		},
	}.play(t)
	t.Run("headroom under Rancher, which deletes the quota", func(t *testing.T) {
		c, r := underRancher(t, fake.Span{}, nil, exactly(1), 1)
		c.Start("controller", embedding{}.program)
		migrate(t, c, "m", "vm0", fake.Outcome{})
		awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
		require.NoError(t, r.SetLimit("tenant", nil))
		requireMoved("m")(t, c)
		require.Empty(t, quotasIn(c, "tenant"))
		require.Empty(t, c.Finish())
	})
}

// underRancher is a cluster whose quota is Rancher's, with n VMs.
func underRancher(t *testing.T, latency fake.Span, project model.Limit, hard corev1.ResourceList, n int) (*fake.Cluster, *model.Simulated) {
	c := fake.New(fake.Config{})
	r := model.Simulate(c, latency, project)
	require.NoError(t, c.CreateNamespace("tenant", nil))
	require.NoError(t, r.SetLimit("tenant", hard))
	c.Advance(time.Minute)
	for i := range n {
		require.NoError(t, c.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	c.Advance(time.Minute)
	return c, r
}

// A limit of 0 is one, such as Rancher writes when a project has nothing left.
func TestH14StaticZero(t *testing.T) {
	scenario{
		vms: 1, static: limits("limits.cpu", "0", "limits.memory", "16Gi"), breaks: fake.Starved, after: requireMoved("m"),
		setup: func(t *testing.T, c *fake.Cluster) {
			require.NoError(t, c.CreateNamespace("tenant", limits("limits.cpu", "4", "limits.memory", "16Gi")))
		},
		before: func(t *testing.T, c *fake.Cluster) {
			require.NoError(t, c.EditQuota("tenant", "tenant", func(hard corev1.ResourceList) { hard["limits.cpu"] = resource.MustParse("0") }))
		},
		act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) { migrate(t, c, "m", "vm0", fake.Outcome{}) },
	}.play(t)
}

// What was asked for does not fit the project, and Rancher did not give it.
func TestH15LimitsThatRancherRefused(t *testing.T) {
	run := func(program func(*fake.Process) fake.Program) string {
		c, r := underRancher(t, fake.Span{}, model.Limit{"limitsCpu": "4"}, exactly(1), 1)
		require.NoError(t, r.SetLimit("tenant", limits("limits.cpu", "100", "limits.memory", "100Gi")))
		c.Advance(time.Minute)
		c.Start("controller", program)
		migrate(t, c, "m", "vm0", fake.Outcome{})
		requireMoved("m")(t, c)
		c.Finish()
		cpu := quotasIn(c, "tenant")[0].Spec.Hard["limits.cpu"]
		return cpu.String()
	}
	c, _ := underRancher(t, fake.Span{}, nil, exactly(1), 1)
	name := quotasIn(c, "tenant")[0].Name // the seed makes it the same
	require.Equal(t, "100", run(byEvents{quota: name, asked: true}.program), "the project has 4")
	require.Equal(t, "1015m", run(embedding{}.program))
}

// Rancher resets the limits between the raise and the restoration.
func TestH16ResetByRancher(t *testing.T) {
	run := func(name string, program func(*fake.Process) fake.Program) (string, []fake.Violation) {
		c, r := underRancher(t, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, nil, exactly(2), 2)
		c.Start("controller", program)
		migrate(t, c, "m", "vm0", fake.Outcome{})
		awaitPhase(t, c, "m", kubevirtv1.MigrationRunning)
		r.Restart()
		requireMoved("m")(t, c)
		violations := c.Finish()
		require.Equal(t, name, quotasIn(c, "tenant")[0].Name)
		cpu := quotasIn(c, "tenant")[0].Spec.Hard["limits.cpu"]
		return cpu.String(), violations
	}
	c, _ := underRancher(t, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, nil, exactly(2), 2)
	name := quotasIn(c, "tenant")[0].Name
	cpu, _ := run(name, byEvents{static: exactly(2), quota: name, adds: true}.program)
	require.Equal(t, "1015m", cpu, "less than the tenant bought")
	cpu, violations := run(name, embedding{}.program)
	require.Equal(t, "2030m", cpu)
	require.Empty(t, violations)
}

func TestH17NullAndNoLimits(t *testing.T) {
	require.Panics(t, func() {
		var amounts map[string]string
		require.NoError(t, json.Unmarshal([]byte("null"), &amounts))
		amounts["limits.cpu"] = "1"
	}, "so it ends")

	bare := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "vm", UID: "vm"}}
	vmim := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "m", UID: "m"}}
	vmim.Spec.VMIName = "vm"
	require.NotPanics(t, func() {
		migration.InFlight(migration.Snapshot{
			VMIs:       []*kubevirtv1.VirtualMachineInstance{nil, bare},
			Migrations: []*kubevirtv1.VirtualMachineInstanceMigration{nil, vmim},
			Pods:       []*corev1.Pod{nil, {}},
		})
	})

	// A quota with such an annotation is raised like any other.
	c := scenario{vms: 1, static: exactly(1), act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
		annotate(t, c, "tenant", migratingPrefix+"x", "null")
		migrate(t, c, "m", "vm0", fake.Outcome{})
	}}.run(t, embedding{}.program)
	requireMoved("m")(t, c)
	require.Empty(t, c.Finish())
}

// One entry of the record cannot be read.
func TestH18OneMalformedEntry(t *testing.T) {
	const uid = "00000000-0000-4000-8000-000000000000"
	corrupt := func(t *testing.T, c *fake.Cluster, remove bool) {
		maps := c.Client("somebody").CoreV1().ConfigMaps(system)
		list, err := maps.List(context.Background(), metav1.ListOptions{})
		require.NoError(t, err)
		for i := range list.Items {
			if delete(list.Items[i].Data, uid); !remove {
				list.Items[i].Data[uid] = `{"version":1,"surge":`
			}
			_, err := maps.Update(context.Background(), &list.Items[i], metav1.UpdateOptions{})
			require.NoError(t, err)
		}
	}
	scenario{
		vms: 2, breaks: fake.Starved,
		act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			annotate(t, c, "tenant", migratingPrefix+"x", `{"limits.cpu":`)
			migrate(t, c, "hangs", "vm0", fake.Outcome{Hang: true})
			c.Advance(30 * time.Second)
			corrupt(t, c, false)
			migrate(t, c, "m", "vm1", fake.Outcome{})
		},
		after: func(t *testing.T, c *fake.Cluster) {
			requireMoved("m")(t, c)
			corrupt(t, c, true)
			c.Advance(time.Minute)
			cpu := c.Quota("tenant", "tenant").Status.Hard["limits.cpu"]
			require.Equal(t, "3045m", cpu.String(), "what hangs is known again")
		},
	}.play(t)
}

// A guest of twice the memory does not fit the static limits. It does not fit by migrating.
func TestH19GrowthByHotPlug(t *testing.T) {
	grow := func(program func(*fake.Process) fake.Program) (memory, static resource.Quantity) {
		c := scenario{vms: 1, static: exactly(1), act: func(t *testing.T, c *fake.Cluster, _ *fake.Process) {
			require.NoError(t, c.HotPlug("tenant", "vm0", 1, resource.MustParse("2Gi")))
		}}.run(t, program)
		c.Finish()
		return c.Quota("tenant", "tenant").Status.Used["limits.memory"], exactly(1)["limits.memory"]
	}
	target := limits("limits.cpu", "1015m", "limits.memory", "4921198336")
	used, static := grow(byEvents{static: exactly(1), quota: "tenant", surge: func(*kubevirtv1.VirtualMachineInstance) corev1.ResourceList { return target }}.program)
	require.Positive(t, used.Cmp(static), "the tenant has more than was bought: %s", used.String())
	used, static = grow(embedding{}.program)
	require.Zero(t, used.Cmp(static), used.String())
}

func TestH20LongNames(t *testing.T) {
	long := strings.Repeat("n", 63)
	require.NotEmpty(t, validation.IsQualifiedName("harvesterhci.io/migrating-"+long), "the update is invalid")

	c := fake.New(fake.Config{})
	require.NoError(t, c.CreateNamespace(long, exactly(1)))
	require.NoError(t, c.CreateVMI(fake.NewVMI(long, long, 1, resource.MustParse("1Gi"))))
	c.Advance(time.Minute)
	c.Start("controller", embedding{}.program)
	require.NoError(t, c.Migrate(long, long, long, fake.Outcome{Hang: true}))
	c.Advance(time.Minute)
	require.Equal(t, kubevirtv1.MigrationRunning, c.Migration(long, long).Status.Phase)

	maps, err := c.Client("admin").CoreV1().ConfigMaps(system).List(context.Background(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, maps.Items, 1)
	require.Empty(t, validation.IsDNS1123Subdomain(maps.Items[0].Name))
	require.Empty(t, validation.IsValidLabelValue(maps.Items[0].Labels[configmap.Label]))
	for key := range maps.Items[0].Data {
		require.Empty(t, validation.IsConfigMapKey(key))
	}
	require.Empty(t, c.Quota(long, long).Annotations)
	require.NoError(t, c.Abort(long, long))
	require.Empty(t, c.Finish())
}
