package fake

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// vms returns a cluster with running VMIs vm0, vm1, ... of one core and 1Gi in namespace
// n, where spare is what the quota n leaves free beyond them, in VMs. Negative: there is
// no quota.
func vms(t *testing.T, config Config, n, spare int) *Cluster {
	c := New(config)
	require.NoError(t, c.CreateNamespace("n", nil))
	if spare >= 0 {
		require.NoError(t, createAs(c, "admin", newQuota("n", "n", room(n+spare))))
	}
	c.Advance(time.Second)
	for i := range n {
		require.NoError(t, c.CreateVMI(NewVMI("n", fmt.Sprintf("vm%d", i), 1, gibi(1))))
	}
	c.Advance(time.Minute)
	for i := range n {
		require.Equal(t, kubevirtv1.Running, c.VMI("n", fmt.Sprintf("vm%d", i)).Status.Phase)
	}
	return c
}

func gibi(n int64) resource.Quantity { return *resource.NewQuantity(n<<30, resource.BinarySI) }

// room is what n VMs of one core and 1Gi are charged.
func room(n int) corev1.ResourceList {
	return quantities("limits.cpu", fmt.Sprintf("%dm", 1015*n), "limits.memory", fmt.Sprint(2773714688*n))
}

// setRoom makes the limits of quota n those of n VMs.
func setRoom(t *testing.T, c *Cluster, n int) {
	require.NoError(t, c.EditQuota("n", "n", func(hard corev1.ResourceList) { maps.Copy(hard, room(n)) }))
}

func phases(c *Cluster) string {
	var told []string
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&c.store, "") {
		state := string(m.Status.Phase)
		if hasRefusal(m) {
			state += "!"
		}
		told = append(told, state)
	}
	return strings.Join(told, " ")
}

// countRefusals notes when quota refuses a target pod, or another object of a migration.
func countRefusals(c *Cluster) *[]time.Duration {
	refusals := &[]time.Duration{}
	work := c.virt.migrations.work
	c.virt.migrations.work = func(key string) (time.Duration, error) {
		again, err := work(key)
		if err != nil && strings.Contains(err.Error(), "exceeded quota") {
			*refusals = append(*refusals, c.elapsed())
		}
		return again, err
	}
	return refusals
}

func TestRefusedMigrationBacksOff(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 0)
	refusals := countRefusals(c)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(4000 * time.Second)
	require.Equal(t, "Pending!", phases(c))
	at := *refusals
	require.Len(t, at, 21)
	for i := 3; i < len(at); i++ {
		require.InDelta(t, backoff(i-1).Seconds(), (at[i] - at[i-1]).Seconds(), 0.02, "%v", at)
	}
}

func TestRefusedMigrationIsWoken(t *testing.T) {
	for name, wake := range map[string]func(*testing.T, *Cluster){
		"by any update of a quota": func(t *testing.T, c *Cluster) {
			rq := c.Quota("n", "n")
			rq.Annotations = map[string]string{"a": "b"}
			_, err := c.update("user", rq, false)
			require.NoError(t, err)
		},
		"by an update of its status": func(t *testing.T, c *Cluster) {
			rq := c.Quota("n", "n")
			rq.Status.Used["limits.cpu"] = milli(1)
			require.NoError(t, updateStatus(c, "user", rq))
		},
		"by an event of the VMIM": func(_ *testing.T, c *Cluster) {
			write(c, "user", c.Migration("n", "m"), func(m *kubevirtv1.VirtualMachineInstanceMigration) { m.Annotations["a"] = "b" })
		},
		"by an event of the VMI": func(_ *testing.T, c *Cluster) {
			write(c, "user", c.VMI("n", "vm0"), func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Labels["a"] = "b" })
		},
		"by the deletion of another quota": func(t *testing.T, c *Cluster) {
			require.NoError(t, c.remove("tenant", ResourceQuotas, "n", "other", metav1.DeleteOptions{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{Timing: steady()}, 1, 0)
			enforce(t, c, newQuota("n", "other", quantities("services", "1")))
			require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
			c.Advance(10 * time.Minute)
			refusals := countRefusals(c)
			c.Advance(time.Second)
			require.Empty(t, *refusals)
			wake(t, c)
			c.Advance(40 * ms)
			require.NotEmpty(t, *refusals)
		})
	}
}

func TestNewQuotaWakesNobody(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 0)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(10 * time.Minute)
	refusals := countRefusals(c)
	require.NoError(t, createAs(c, "user", newQuota("n", "new", quantities("services", "1"))))
	c.quotas.queue.stop() // its status would be an update
	c.Advance(time.Second)
	require.Empty(t, *refusals)
}

func TestEndOfAMigrationWakesTheOthers(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 0)
	require.NoError(t, c.CreateVMI(NewVMI("m", "far", 1, gibi(1))))
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(11 * time.Minute) // it sleeps until the 22nd
	refusals := countRefusals(c)
	require.NoError(t, c.Migrate("m", "far", "far", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, kubevirtv1.MigrationSucceeded, c.Migration("m", "far").Status.Phase)
	require.NotEmpty(t, *refusals)
}

// A raise that KubeVirt hears of before quota admission does is a lost race.
func TestLostRace(t *testing.T) {
	timing := steady()
	timing.Admission = Span{50 * ms, 50 * ms}
	c := vms(t, Config{Timing: timing}, 1, 0)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(10 * time.Minute)
	setRoom(t, c, 2)
	c.Advance(time.Minute)
	require.Equal(t, "{limits.cpu=2030m limits.memory=5547429376}", list(c.Quota("n", "n").Status.Hard))
	require.Equal(t, "Pending!", phases(c), "it sleeps, although there is room")
	write(c, "user", c.Migration("n", "m"), func(m *kubevirtv1.VirtualMachineInstanceMigration) { m.Annotations["touched"] = "now" })
	c.Advance(time.Minute)
	require.Equal(t, "Succeeded", phases(c))
}

func TestLostRacesHappenNowAndThen(t *testing.T) {
	lost := 0
	for seed := range 200 {
		c := vms(t, Config{Seed: uint64(seed)}, 1, 0)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(time.Minute)
		setRoom(t, c, 2)
		c.Advance(200 * ms)
		if phases(c) == "Pending!" {
			lost++
		}
	}
	require.Positive(t, lost)
	require.Less(t, lost, 20)
}

func TestRefusalForOtherReasonsSetsNoCondition(t *testing.T) {
	c := vms(t, Config{}, 1, 1)
	enforce(t, c, newQuota("n", "other", quantities("limits.cpu", "10", "requests.memory", "0")))
	require.NoError(t, c.Migrate("n", "refused", "vm0", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, "Pending!", phases(c))
	require.NoError(t, c.Abort("n", "refused"))
	c.Advance(time.Second)
	require.NoError(t, c.remove("tenant", ResourceQuotas, "n", "other", metav1.DeleteOptions{}))
	scoped := newQuota("n", "demanding", quantities("pods", "10"))
	enforce(t, c, scoped)
	status := c.Quota("n", "demanding")
	status.Status.Used = nil
	require.NoError(t, updateStatus(c, "user", status))
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(time.Second)
	require.Equal(t, "Pending", phases(c), "the status of a quota is unknown")
	c.Advance(20 * time.Minute)
	require.Equal(t, "Succeeded", phases(c))
}

func TestParallelLimits(t *testing.T) {
	for _, test := range []struct{ nodes, vms, running int }{{6, 24, 5}, {2, 8, 4}} {
		c := vms(t, Config{Nodes: test.nodes}, test.vms, -1)
		migrateAll(t, c, test.vms, Outcome{Hang: true})
		perNode := map[string]int{}
		for _, m := range c.Snapshot("n").Migrations {
			if m.Status.Phase == kubevirtv1.MigrationRunning {
				perNode[c.VMI("n", m.Spec.VMIName).Status.NodeName]++
			}
		}
		for node, n := range perNode {
			require.LessOrEqual(t, n, 2, node)
		}
		require.Equal(t, test.running, strings.Count(phases(c), "Running"))
		require.Equal(t, test.vms-test.running, strings.Count(phases(c), "Pending"))
		require.NotContains(t, phases(c), "!", "those that wait were not refused")
	}
}

// migrateAll migrates vm0, vm1, ... as m0, m1, ..., and lets a minute pass.
func migrateAll(t *testing.T, c *Cluster, n int, outcome Outcome) {
	for i := range n {
		require.NoError(t, c.Migrate("n", fmt.Sprintf("m%d", i), fmt.Sprintf("vm%d", i), outcome))
	}
	c.Advance(time.Minute)
}

func TestRefusedMigrationsTakeNoPlace(t *testing.T) {
	c := vms(t, Config{Nodes: 6}, 8, 0)
	migrateAll(t, c, 8, Outcome{})
	require.Equal(t, 8, strings.Count(phases(c), "Pending!"))
}

func TestHigherPriorityGoesFirst(t *testing.T) {
	c := vms(t, Config{Nodes: 2}, 6, -1)
	for i := range 4 {
		require.NoError(t, c.Migrate("n", fmt.Sprintf("m%d", i), fmt.Sprintf("vm%d", i), Outcome{Linger: time.Hour}))
	}
	c.Advance(200 * ms)
	for i, priority := range []kubevirtv1.MigrationPriority{kubevirtv1.PrioritySystemMaintenance, kubevirtv1.PrioritySystemCritical} {
		m := newMigration("n", fmt.Sprintf("p%d", i), fmt.Sprintf("vm%d", 4+i))
		m.Spec.Priority = &priority
		require.NoError(t, c.CreateMigration(m))
	}
	var started []string
	c.store.tell = append(c.store.tell, func(happened change) {
		if pod, ok := happened.after.(*corev1.Pod); ok && happened.before == nil {
			started = append(started, pod.Annotations[kubevirtv1.MigrationJobNameAnnotation])
		}
	})
	require.True(t, c.Until(time.Minute, func() bool { return len(started) == 1 }))
	require.Equal(t, []string{"p1"}, started)
}

func TestNextMigrationWaitsForTheSourceToLeave(t *testing.T) {
	c := vms(t, Config{}, 1, 5)
	require.NoError(t, c.Migrate("n", "a", "vm0", Outcome{Linger: 10 * time.Minute}))
	c.Advance(time.Minute)
	require.Equal(t, "Succeeded", phases(c))
	require.NoError(t, c.Migrate("n", "b", "vm0", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, "Succeeded Pending", phases(c))
	c.Advance(20 * time.Minute)
	require.Equal(t, "Succeeded Succeeded", phases(c))
	target := c.virt.current(c.VMI("n", "vm0"))
	require.Equal(t, string(c.Migration("n", "b").UID), target.Labels[kubevirtv1.MigrationJobLabel])
}

func TestOneMigrationOfAVMIAtATime(t *testing.T) {
	c := vms(t, Config{}, 1, 5)
	require.NoError(t, c.Migrate("n", "a", "vm0", Outcome{Hang: true}))
	c.Advance(time.Minute)
	require.NoError(t, c.Migrate("n", "b", "vm0", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, "Running Failed", phases(c))
}

func TestEndedMigrationsAreCollected(t *testing.T) {
	c := vms(t, Config{}, 2, -1)
	for i := range 4 {
		require.NoError(t, c.Migrate("n", fmt.Sprintf("other%d", i), "vm1", Outcome{}))
		c.Advance(time.Minute)
	}
	for i := 8; i > 0; i-- {
		require.NoError(t, c.Migrate("n", fmt.Sprintf("m%d", i), "vm0", Outcome{Fail: i%2 == 1}))
		c.Advance(time.Minute)
	}
	require.Len(t, strings.Fields(phases(c)), 5+4, "five of each VMI are kept")
	require.Nil(t, c.Migration("n", "m6"))
	require.NotNil(t, c.Migration("n", "m5"))
	require.Len(t, c.Snapshot("n").Pods, 6+5, "with the pods that they left behind")
}

func TestMigrationWithoutVMIIsDeleted(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	require.NoError(t, c.Migrate("n", "m", "missing", Outcome{}))
	c.Advance(time.Second)
	require.NotNil(t, c.Migration("n", "m").DeletionTimestamp)
}

func TestVMIIsRefusedUntilThereIsRoom(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	require.NoError(t, c.CreateVMI(NewVMI("n", "late", 1, gibi(1))))
	c.Advance(time.Second)
	late := c.VMI("n", "late")
	require.Equal(t, kubevirtv1.Pending, late.Status.Phase)
	synchronized := vmiCondition(late, kubevirtv1.VirtualMachineInstanceSynchronized)
	require.Equal(t, corev1.ConditionFalse, synchronized.Status)
	require.Contains(t, synchronized.Message, "exceeded quota: n")
	require.NoError(t, c.CreateVMI(NewVMI("n", "deleted", 1, gibi(1))))
	c.Advance(time.Second)
	require.NoError(t, c.DeleteVMI("n", "deleted"))
	c.Advance(time.Second)
	require.Nil(t, c.VMI("n", "deleted"))
	setRoom(t, c, 2)
	c.Advance(time.Minute)
	late = c.VMI("n", "late")
	require.Equal(t, kubevirtv1.Running, late.Status.Phase)
	require.Nil(t, vmiCondition(late, kubevirtv1.VirtualMachineInstanceSynchronized))
}

func TestConditionsKeepTheirTime(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	ready := vmiCondition(c.VMI("n", "vm0"), kubevirtv1.VirtualMachineInstanceReady)
	require.Equal(t, corev1.ConditionTrue, ready.Status)
	write(c, "user", c.VMI("n", "vm0"), func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Labels["a"] = "b" })
	c.Advance(time.Minute)
	require.Equal(t, ready, vmiCondition(c.VMI("n", "vm0"), kubevirtv1.VirtualMachineInstanceReady))
	require.NoError(t, c.DeleteVMI("n", "vm0"))
	c.Advance(50 * ms)
	ended := vmiCondition(c.VMI("n", "vm0"), kubevirtv1.VirtualMachineInstanceReady)
	require.Equal(t, corev1.ConditionFalse, ended.Status)
	require.True(t, ended.LastTransitionTime.After(ready.LastTransitionTime.Time))
}

func TestVMIDies(t *testing.T) {
	c := vms(t, Config{}, 1, 1)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
	c.Advance(time.Minute)
	source := c.virt.current(c.VMI("n", "vm0"))
	require.NoError(t, c.remove("user", Pods, "n", source.Name, *metav1.NewDeleteOptions(0)))
	c.Advance(time.Minute)
	require.Equal(t, kubevirtv1.Failed, c.VMI("n", "vm0").Status.Phase)
	require.Equal(t, "Failed", phases(c))
	require.Equal(t, "{limits.cpu=0 limits.memory=0}", used(c, "n"), "the target goes with it")
	require.Len(t, c.Snapshot("n").Pods, 1, "it gets no other pod")
	require.NoError(t, c.DeleteVMI("n", "vm0"))
	c.Advance(time.Minute)
	require.Nil(t, c.VMI("n", "vm0"))
	require.Empty(t, c.Snapshot("n").Pods)
}

func TestTargetDies(t *testing.T) {
	for phase, outcome := range map[kubevirtv1.VirtualMachineInstanceMigrationPhase]Outcome{
		kubevirtv1.MigrationScheduling:      {},
		kubevirtv1.MigrationPreparingTarget: {},
		kubevirtv1.MigrationRunning:         {Hang: true},
	} {
		t.Run(string(phase), func(t *testing.T) {
			c := vms(t, Config{}, 1, 1)
			require.NoError(t, c.Migrate("n", "m", "vm0", outcome))
			require.True(t, c.Until(time.Minute, func() bool { return c.Migration("n", "m").Status.Phase == phase }))
			target := c.virt.target(c.Migration("n", "m"), c.VMI("n", "vm0"))
			require.NoError(t, c.remove("user", Pods, "n", target.Name, metav1.DeleteOptions{}))
			c.Advance(time.Minute)
			require.Equal(t, "Failed", phases(c))
			require.Equal(t, list(room(1)), used(c, "n"))
			vmi := c.VMI("n", "vm0")
			require.Equal(t, kubevirtv1.Running, vmi.Status.Phase)
			if vmi.Status.MigrationState != nil {
				require.True(t, vmi.Status.MigrationState.Failed, "so that another one may begin")
			}
			require.NoError(t, c.Migrate("n", "again", "vm0", Outcome{}))
			c.Advance(time.Minute)
			require.Equal(t, "Succeeded Failed", phases(c))
		})
	}
}

func TestTargetWithoutANode(t *testing.T) {
	c := vms(t, Config{Nodes: 1}, 1, 1)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(4 * time.Minute)
	require.Equal(t, "Scheduling", phases(c))
	require.Equal(t, list(room(2)), used(c, "n"))
	c.Advance(2 * time.Minute)
	require.Equal(t, "Failed", phases(c), "five minutes are enough")
	require.Equal(t, list(room(1)), used(c, "n"))
}

func TestPodWaitsForANode(t *testing.T) {
	c := vms(t, Config{Nodes: 1}, 0, -1)
	c.Drain("node01")
	require.NoError(t, c.CreateVMI(NewVMI("n", "vm", 1, gibi(1))))
	c.Advance(time.Minute)
	require.Equal(t, kubevirtv1.Scheduling, c.VMI("n", "vm").Status.Phase)
	pod := c.Snapshot("n").Pods[0]
	require.True(t, isUnschedulable(pod.Status.Conditions[0]))
	c.Uncordon("node01")
	c.Advance(time.Minute)
	pod = c.Snapshot("n").Pods[0]
	require.False(t, isUnschedulable(pod.Status.Conditions[0]))
	require.Equal(t, kubevirtv1.Running, c.VMI("n", "vm").Status.Phase)
}

func TestDecentralizedMigrationsDoubleNothing(t *testing.T) {
	c := vms(t, Config{}, 1, 1)
	m := newMigration("n", "m", "vm0")
	m.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{MigrationID: "x", ConnectURL: "y"}
	require.NoError(t, c.CreateMigration(m))
	c.Advance(time.Minute)
	require.Equal(t, "Synchronizing", phases(c))
	require.Equal(t, list(room(1)), used(c, "n"))
}

func TestDrain(t *testing.T) {
	c := vms(t, Config{}, 10, 10)
	before := 0
	for _, vmi := range c.Snapshot("n").VMIs {
		if vmi.Status.NodeName == "node01" {
			before++
		}
	}
	require.Greater(t, before, 2)
	c.Drain("node01")
	c.Advance(time.Second)
	require.Len(t, c.Snapshot("n").Migrations, before, "a migration for every VMI, at once")
	for _, m := range c.Snapshot("n").Migrations {
		require.Equal(t, "node01", m.Annotations[kubevirtv1.EvacuationMigrationAnnotation])
		require.Equal(t, kubevirtv1.PrioritySystemCritical, *m.Spec.Priority)
	}
	c.Advance(10 * time.Minute)
	for _, vmi := range c.Snapshot("n").VMIs {
		require.NotEqual(t, "node01", vmi.Status.NodeName)
		require.Empty(t, vmi.Status.EvacuationNodeName)
		require.Equal(t, vmi.Status.NodeName, vmi.Labels[kubevirtv1.NodeNameLabel])
	}
	require.Len(t, c.Snapshot("n").Migrations, before)
	require.NoError(t, c.CreateVMI(NewVMI("n", "new", 1, gibi(1))))
	c.Advance(time.Minute)
	require.NotEqual(t, "node01", c.VMI("n", "new").Status.NodeName)
}

func TestDrainLeavesAloneWhatCannotMove(t *testing.T) {
	c := vms(t, Config{Nodes: 1}, 2, 1)
	require.NoError(t, c.Migrate("n", "own", "vm0", Outcome{Hang: true}))
	c.Advance(time.Second)
	require.NoError(t, c.DeleteVMI("n", "vm1"))
	require.NoError(t, c.CreateVMI(NewVMI("n", "starting", 1, gibi(1))))
	c.Advance(10 * ms)
	c.Drain("node01")
	c.Advance(50 * ms)
	require.Len(t, c.Snapshot("n").Migrations, 1)
	require.NotNil(t, c.Migration("n", "own"))
}

func TestEvacuationTriesAgainWithPauses(t *testing.T) {
	c := vms(t, Config{Outcome: func(*kubevirtv1.VirtualMachineInstanceMigration) Outcome { return Outcome{Fail: true} }}, 1, 1)
	var started []time.Duration
	c.store.tell = append(c.store.tell, func(happened change) {
		if happened.kind == Pods && happened.before == nil {
			started = append(started, c.elapsed())
		}
	})
	c.Drain(c.VMI("n", "vm0").Status.NodeName)
	c.Advance(10 * time.Minute)
	require.GreaterOrEqual(t, len(started), 4)
	for i := 1; i < 4; i++ {
		pause := 20 * time.Second << (i - 1)
		require.InDelta(t, pause.Seconds(), (started[i] - started[i-1]).Seconds(), 15, "%v", started)
	}
	c.Uncordon(c.VMI("n", "vm0").Status.NodeName)
	require.Empty(t, c.VMI("n", "vm0").Status.EvacuationNodeName)
	c.Advance(10 * time.Minute)
	n := len(started)
	c.Advance(time.Hour)
	require.Len(t, started, n, "nobody wants it to leave any more")
}

func TestFailedHotPlugWaitsToo(t *testing.T) {
	fails := func(*kubevirtv1.VirtualMachineInstanceMigration) Outcome { return Outcome{Fail: true} }
	c := vms(t, Config{Timing: steady(), Outcome: fails}, 1, 5)
	for _, sockets := range []uint32{2, 3} {
		require.NoError(t, c.HotPlug("n", "vm0", sockets, gibi(1)))
		c.Advance(10 * time.Second)
	}
	require.ElementsMatch(t, []string{"Failed", "Pending"}, strings.Fields(phases(c)), "20 seconds have to go by")
	c.Advance(time.Minute)
	require.Equal(t, "Failed Failed", phases(c))
}

func TestHotPlug(t *testing.T) {
	c := vms(t, Config{}, 1, 5)
	require.ErrorIs(t, c.HotPlug("n", "missing", 2, gibi(2)), errNotRunning)
	require.NoError(t, c.HotPlug("n", "vm0", 2, gibi(2)))
	vmi := c.VMI("n", "vm0")
	require.Equal(t, corev1.ConditionTrue, vmiCondition(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange).Status)
	require.Equal(t, corev1.ConditionTrue, vmiCondition(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange).Status)
	require.Equal(t, uint32(1), vmi.Status.CurrentCPUTopology.Sockets)
	require.Equal(t, kubevirtv1.PriorityUserTriggered, *c.Snapshot("n").Migrations[0].Spec.Priority)
	require.True(t, c.Until(time.Minute, func() bool { return phases(c) == "Running" }))
	// 1015m and 2*(1Gi+270Mi)+60M before, 2015m and 2*(2Gi+270Mi)+60M on top.
	require.Equal(t, "{limits.cpu=3030m limits.memory=7694913024}", used(c, "n"))
	c.Advance(time.Minute)
	require.Equal(t, "Succeeded", phases(c))
	vmi = c.VMI("n", "vm0")
	require.False(t, changing(vmi))
	require.Equal(t, uint32(2), vmi.Status.CurrentCPUTopology.Sockets)
}

func TestMemoryOverhead(t *testing.T) {
	c := vms(t, Config{}, 1, 5)
	require.Equal(t, "270Mi", c.VMI("n", "vm0").Status.Memory.MemoryOverhead.String())
	c.SetMemoryOverhead(400 << 20)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
	c.Advance(time.Minute)
	state := c.VMI("n", "vm0").Status.MigrationState
	require.Equal(t, "400Mi", state.TargetMemoryOverhead.String())
	target, _ := find[*corev1.Pod](&c.store, "n", state.TargetPod)
	require.Equal(t, "419430400", target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes])
	source, _ := find[*corev1.Pod](&c.store, "n", state.SourcePod)
	require.Equal(t, "283115520", source.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes])
	require.NotContains(t, source.Annotations, kubevirtv1.DeprecatedNonRootVMIAnnotation)
	require.Contains(t, target.Annotations, kubevirtv1.DeprecatedNonRootVMIAnnotation, "KubeVirt migrates to non-root")
	require.Equal(t, "2848Mi", spell(target.Spec.Containers[0].Resources.Limits["memory"]))
}

func TestLimitsOfTheVMIWin(t *testing.T) {
	c := vms(t, Config{}, 0, 5)
	vmi := NewVMI("n", "limited", 2, gibi(1))
	vmi.Spec.Domain.Resources.Limits = quantities("cpu", "1500m", "memory", "3Gi")
	require.NoError(t, c.CreateVMI(vmi))
	c.Advance(time.Minute)
	pod := c.Snapshot("n").Pods[0]
	r := pod.Spec.Containers[0].Resources
	require.Equal(t, "1500m", spell(r.Limits["cpu"]))
	require.Equal(t, "3342Mi", spell(r.Limits["memory"]))
	require.Equal(t, "200m", spell(r.Requests["cpu"]))
}

func TestVMIWithoutAnyRequest(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	vmi := NewVMI("n", "bare", 1, gibi(1))
	vmi.Labels, vmi.Annotations = nil, nil
	vmi.Spec.Domain.Resources = kubevirtv1.ResourceRequirements{}
	vmi.Spec.Domain.CPU = nil
	vmi.Spec.Volumes = nil
	require.NoError(t, c.CreateVMI(vmi))
	require.NoError(t, c.Migrate("n", "m", "bare", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, "Succeeded", phases(c))
	r := c.Snapshot("n").Pods[0].Spec.Containers[0].Resources
	require.Equal(t, "1294Mi", spell(r.Requests["memory"]))
	require.Equal(t, "100m", spell(r.Requests["cpu"]))
	require.NotContains(t, r.Limits, corev1.ResourceMemory)
}

func TestMemoryLimitRatioOfTheNamespace(t *testing.T) {
	c := vms(t, Config{}, 0, 5)
	ns, _ := find[*corev1.Namespace](&c.store, "", "n")
	for label, limit := range map[string]string{"1.5": "1941Mi", "0.5": "2588Mi", "NaN": "2588Mi", "": "2588Mi"} {
		write(c, "user", ns, func(ns *corev1.Namespace) {
			ns.Labels = map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: label}
		})
		pod := c.virt.launcher(NewVMI("n", "vm", 1, gibi(1)))
		require.Equal(t, limit, spell(pod.Spec.Containers[0].Resources.Limits["memory"]), label)
	}
}

// hotplugged is a VMI with a hot-plugged volume and a persistent TPM.
func hotplugged() *kubevirtv1.VirtualMachineInstance {
	vmi := NewVMI("n", "vm", 1, gibi(1))
	vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: pointer(true)}
	vmi.Spec.Volumes = append(vmi.Spec.Volumes, kubevirtv1.Volume{Name: "hp", VolumeSource: kubevirtv1.VolumeSource{
		PersistentVolumeClaim: &kubevirtv1.PersistentVolumeClaimVolumeSource{Hotpluggable: true},
	}})
	return vmi
}

func TestAttachmentPodsAndBackendStorage(t *testing.T) {
	for name, outcome := range map[string]Outcome{"success": {}, "failure": {Fail: true}} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{}, 0, -1)
			enforce(t, c, newQuota("n", "q", quantities("limits.memory", "20Gi", "requests.storage", "1Gi", "pods", "10")))
			require.NoError(t, c.CreateVMI(hotplugged()))
			c.Advance(time.Minute)
			const once = "{limits.memory=2853714688 pods=2 requests.storage=10Mi}"
			require.Equal(t, once, used(c, "q"))
			old := c.VMI("n", "vm").Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName
			require.NoError(t, c.Migrate("n", "m", "vm", outcome))
			require.True(t, c.Until(time.Minute, func() bool { return phases(c) == "Running" }))
			require.Equal(t, "{limits.memory=5707429376 pods=4 requests.storage=20Mi}", used(c, "q"))
			state := c.VMI("n", "vm").Status.MigrationState
			require.NotEmpty(t, state.TargetAttachmentPodUID)
			for _, pod := range c.Snapshot("n").Pods {
				if owner, ok := find[*corev1.Pod](&c.store, "n", metav1.GetControllerOf(pod).Name); ok {
					require.Equal(t, owner.Spec.NodeName, pod.Spec.NodeName)
				}
			}
			require.Equal(t, old, state.SourcePersistentStatePVCName)
			require.NotEqual(t, old, state.TargetPersistentStatePVCName)
			c.Advance(time.Minute)
			require.Equal(t, "{limits.memory=2853714688 pods=2 requests.storage=20Mi}", used(c, "q"), "a pod that has ended keeps its claim")
			for _, pod := range c.Snapshot("n").Pods {
				if ended(pod) {
					require.NoError(t, c.remove("admin", Pods, "n", pod.Name, metav1.DeleteOptions{}))
				}
			}
			c.Advance(time.Minute)
			require.Equal(t, once, used(c, "q"))
			claims := c.Snapshot("n").PVCs
			require.Len(t, claims, 1)
			require.Equal(t, outcome.Fail, claims[0].Name == old)
			require.Equal(t, map[string]string{persistentState: "vm"}, claims[0].Labels)
			require.NoError(t, c.DeleteVMI("n", "vm"))
			c.Advance(2 * time.Minute)
			require.Empty(t, c.Snapshot("n").PVCs, "they belong to the VMI")
			require.Empty(t, c.Snapshot("n").Pods)
		})
	}
}

func TestWhatIsAttachedAndWhatPersists(t *testing.T) {
	vmi := NewVMI("n", "vm", 1, gibi(1))
	require.False(t, hotplugs(vmi))
	vmi.Spec.Volumes = append(vmi.Spec.Volumes,
		kubevirtv1.Volume{Name: "a", VolumeSource: kubevirtv1.VolumeSource{DataVolume: &kubevirtv1.DataVolumeSource{}}},
		kubevirtv1.Volume{Name: "b", VolumeSource: kubevirtv1.VolumeSource{PersistentVolumeClaim: &kubevirtv1.PersistentVolumeClaimVolumeSource{}}})
	require.False(t, hotplugs(vmi))
	vmi.Spec.Volumes[1].DataVolume.Hotpluggable = true
	require.True(t, hotplugs(vmi))

	domain := &vmi.Spec.Domain
	require.False(t, persists(vmi))
	domain.Devices.TPM = &kubevirtv1.TPMDevice{}
	require.False(t, persists(vmi))
	domain.Firmware = &kubevirtv1.Firmware{Bootloader: &kubevirtv1.Bootloader{EFI: &kubevirtv1.EFI{}}}
	require.False(t, persists(vmi))
	domain.Firmware.Bootloader.EFI.Persistent = pointer(false)
	require.False(t, persists(vmi))
	domain.Firmware.Bootloader.EFI.Persistent = pointer(true)
	require.True(t, persists(vmi))
}

func TestRefusedAttachmentPodSetsNoCondition(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	enforce(t, c, newQuota("n", "q", quantities("pods", "3")))
	require.NoError(t, c.CreateVMI(hotplugged()))
	c.Advance(time.Minute)
	require.NoError(t, c.Migrate("n", "m", "vm", Outcome{}))
	refusals := countRefusals(c)
	c.Advance(time.Minute)
	require.NotEmpty(t, *refusals)
	require.Equal(t, "Pending", phases(c))
	require.Equal(t, "{pods=3}", used(c, "q"), "the target pod is there")
}

func TestRefusedBackendClaimSetsTheCondition(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	enforce(t, c, newQuota("n", "q", quantities("requests.storage", "15Mi")))
	require.NoError(t, c.CreateVMI(hotplugged()))
	c.Advance(time.Minute)
	require.NoError(t, c.Migrate("n", "m", "vm", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, "Pending!", phases(c))
}

func TestSharedBackendStorageIsNotDoubled(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	enforce(t, c, newQuota("n", "q", quantities("requests.storage", "1Gi")))
	require.NoError(t, c.CreateVMI(hotplugged()))
	c.Advance(time.Minute)
	write(c, "user", c.Snapshot("n").PVCs[0], func(claim *corev1.PersistentVolumeClaim) {
		claim.Status.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	})
	require.NoError(t, c.Migrate("n", "m", "vm", Outcome{Hang: true}))
	c.Advance(time.Minute)
	require.Equal(t, "Running", phases(c))
	require.Equal(t, "{requests.storage=10Mi}", used(c, "q"))
}
