package migration_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// The migration of these scenes, in each of its states.
var (
	queued  = flight{uid: "uid-m1", state: quota.Queued, surge: onePod}
	blocked = flight{uid: "uid-m1", state: quota.Blocked, surge: onePod}
	charged = flight{uid: "uid-m1", state: quota.Charged, surge: onePod, held: onePod}
)

func TestNothingMigrates(t *testing.T) {
	require.Nil(t, migration.InFlight(migration.Snapshot{}))
	s, _, _ := newScene()
	s.vmi("vm2")
	require.Nil(t, migration.InFlight(s.Snapshot))
}

func TestWaiting(t *testing.T) {
	phases := []kubevirtv1.VirtualMachineInstanceMigrationPhase{
		kubevirtv1.MigrationPhaseUnset, kubevirtv1.MigrationPending, kubevirtv1.MigrationWaitingForSync, kubevirtv1.MigrationSynchronizing,
	}
	for _, phase := range phases {
		t.Run("queued in phase "+string(phase), func(t *testing.T) {
			s, vmi, _ := newScene()
			s.vmim(vmi, "m1", phase)
			s.expect(t, queued)
		})
	}
	t.Run("blocked", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
	t.Run("no longer blocked", func(t *testing.T) {
		s, vmi, _ := newScene()
		refuse(s.vmim(vmi, "m1", kubevirtv1.MigrationPending), corev1.ConditionFalse)
		s.expect(t, queued)
	})
	t.Run("another condition", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.refused(vmi, "m1")
		m.Status.Conditions[0].Type = kubevirtv1.VirtualMachineInstanceMigrationAbortRequested
		s.expect(t, queued)
	})
	t.Run("refused before Pending", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1").Status.Phase = kubevirtv1.MigrationPhaseUnset
		s.expect(t, queued)
	})
	for _, phase := range []kubevirtv1.VirtualMachineInstanceMigrationPhase{kubevirtv1.MigrationFailed, kubevirtv1.MigrationSucceeded} {
		t.Run(string(phase)+" and still refused", func(t *testing.T) {
			s, vmi, _ := newScene()
			s.refused(vmi, "m1").Status.Phase = phase
			s.expect(t)
		})
	}
	t.Run("aborted while refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1").DeletionTimestamp = s.deleted()
		s.expect(t)
	})
	t.Run("VMI deleted while refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		vmi.DeletionTimestamp = s.deleted()
		s.expect(t)
	})
	for _, phase := range []kubevirtv1.VirtualMachineInstancePhase{kubevirtv1.Succeeded, kubevirtv1.Failed} {
		t.Run("VMI "+string(phase)+" while refused", func(t *testing.T) {
			s, vmi, _ := newScene()
			s.refused(vmi, "m1")
			vmi.Status.Phase = phase
			s.expect(t)
		})
	}
	t.Run("source ended while refused", func(t *testing.T) {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		source.Status.Phase = corev1.PodFailed
		s.expect(t)
	})
	t.Run("VMI gone while refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		s.forget(vmi)
		s.expect(t)
	})
	t.Run("VMIM and VMI gone", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.forget(s.refused(vmi, "m1"))
		s.forget(vmi)
		s.expect(t)
	})
}

func TestCharged(t *testing.T) {
	t.Run("pod there, still Pending and refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.refused(vmi, "m1")
		s.launcher(vmi, "target", m.UID)
		s.expect(t, charged)
	})
	for _, phase := range createdPhases {
		t.Run("in phase "+string(phase), func(t *testing.T) {
			s, vmi, source := newScene()
			m, _ := s.running(vmi, source, "m1", "target")
			m.Status.Phase = phase
			s.expect(t, charged)
		})
	}
	t.Run("VMI deleted", func(t *testing.T) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		vmi.DeletionTimestamp = s.deleted()
		source.DeletionTimestamp, target.DeletionTimestamp = s.deleted(), s.deleted()
		s.expect(t, charged)
		target.Status.Phase = corev1.PodSucceeded
		s.expect(t)
	})
	t.Run("VMI gone", func(t *testing.T) {
		s, vmi, source := newScene()
		s.running(vmi, source, "m1", "target")
		s.forget(vmi)
		s.expect(t)
	})
	t.Run("source ends before anybody says why", func(t *testing.T) {
		s, vmi, source := newScene()
		s.running(vmi, source, "m1", "target")
		source.Status.Phase = corev1.PodSucceeded
		s.expect(t)
	})
	t.Run("target ends before anybody says why", func(t *testing.T) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		target.Status.Phase = corev1.PodFailed
		s.expect(t)
	})
}

// createdPhases are those that KubeVirt enters because the target pod is there.
var createdPhases = []kubevirtv1.VirtualMachineInstanceMigrationPhase{
	kubevirtv1.MigrationScheduling, kubevirtv1.MigrationScheduled, kubevirtv1.MigrationPreparingTarget,
	kubevirtv1.MigrationTargetReady, kubevirtv1.MigrationRunning,
}

func TestTargetPodNotSeenYet(t *testing.T) {
	for _, phase := range createdPhases {
		t.Run(string(phase), func(t *testing.T) {
			s, vmi, _ := newScene()
			s.vmim(vmi, "m1", phase)
			s.expect(t, charged)
		})
	}
	t.Run("no pod at all", func(t *testing.T) {
		s, vmi, source := newScene()
		m := s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
		s.forget(source)
		// Of the VMI: 1 core, a tenth of it requested, 1Gi with 270Mi of overhead, and
		// twice that as the limit.
		estimate := list(`pods=1 count/pods=1
			requests.cpu=100m cpu=100m limits.cpu=1
			requests.memory=1294Mi memory=1294Mi limits.memory=2588Mi`)
		s.expect(t, flight{"uid-m1", quota.Queued, estimate, nil})
		m.Status.Phase = kubevirtv1.MigrationScheduling
		s.expect(t, flight{"uid-m1", quota.Charged, estimate, estimate})

		vmi.Spec.Domain.Resources.Requests = nil
		vmi.Status.CurrentCPUTopology.Cores = 3
		estimate = with(estimate, "requests.cpu=300m cpu=300m limits.cpu=3")
		s.expect(t, flight{"uid-m1", quota.Charged, estimate, estimate})
	})
	t.Run("succeeded before the pod was seen", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.vmim(vmi, "m1", kubevirtv1.MigrationRunning)
		vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: m.UID, Completed: true}
		s.expect(t)
	})
	t.Run("the VMI ends", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling)
		vmi.DeletionTimestamp = s.deleted()
		s.expect(t)
	})
}

// larger makes pod cost limits.memory=3Gi in all, to tell it from the others.
func larger(pod *corev1.Pod) corev1.ResourceList {
	pod.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = list("q=3161225472")["q"] // 3Gi - 60M
	return with(onePod, "limits.memory=3Gi")
}

func TestFailed(t *testing.T) {
	s, vmi, source := newScene()
	m, target := s.running(vmi, source, "m1", "target")
	cost := larger(target)
	still := flight{"uid-m1", quota.Charged, cost, cost}
	s.expect(t, still)

	vmi.Status.MigrationState.Completed, vmi.Status.MigrationState.Failed = true, true
	s.expect(t, still)
	fail(vmi, m)
	s.expect(t, still)
	s.forget(m)
	s.expect(t, still)
	target.Status.Phase = corev1.PodSucceeded
	s.expect(t)
}

func TestAborted(t *testing.T) {
	t.Run("while Running", func(t *testing.T) {
		s, vmi, source := newScene()
		m, target := s.running(vmi, source, "m1", "target")
		m.DeletionTimestamp = s.deleted()
		s.expect(t, charged)
		vmi.Status.MigrationState.AbortRequested = true
		fail(vmi, m)
		s.expect(t, charged)
		s.forget(m)
		s.expect(t, charged)
		target.Status.Phase = corev1.PodSucceeded
		s.expect(t)
	})
	t.Run("before the VMI says anything", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling)
		target := s.launcher(vmi, "target", m.UID)
		m.DeletionTimestamp = s.deleted()
		s.expect(t, charged)
		target.DeletionTimestamp = s.deleted()
		s.expect(t, charged)
		s.forget(m)
		s.expect(t, charged)
		vmi.Status.ActivePods = nil // nothing speaks against it
		s.expect(t, charged)
		s.forget(target)
		s.expect(t)
	})
	t.Run("pod gone before the VMIM", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling).DeletionTimestamp = s.deleted()
		s.expect(t)
	})
}

func TestSucceeded(t *testing.T) {
	s, vmi, source := newScene()
	cost := larger(source)
	m, _ := s.running(vmi, source, "m1", "target")
	s.expect(t, charged) // the target

	// From now on it is the source that is one too many.
	still := flight{"uid-m1", quota.Charged, cost, cost}
	vmi.Status.MigrationState.Completed = true
	s.expect(t, still)
	succeed(vmi, m)
	s.expect(t, still)
	s.forget(m)
	s.expect(t, still)

	t.Run("source hangs, and is deleted", func(t *testing.T) {
		grace := int64(35)
		source.DeletionTimestamp, source.DeletionGracePeriodSeconds = s.deleted(), &grace
		s.expect(t, still)
		s.Now = source.DeletionTimestamp.Add(35 * time.Second)
		s.expect(t, still)
		s.Now = source.DeletionTimestamp.Add(36 * time.Second)
		s.expect(t)
		s.Now = time.Time{}
		s.expect(t, still)
	})
	source.Status.Phase = corev1.PodSucceeded
	s.expect(t)
}

func TestSuccessThatOnlyTheVMIMTells(t *testing.T) {
	s, vmi, source := newScene()
	cost := larger(source)
	m, _ := s.running(vmi, source, "m1", "target")
	m.Status.Phase = kubevirtv1.MigrationSucceeded
	s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
	vmi.Status.MigrationState = nil
	s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
}

// TestMigratedBefore: the label of a target pod stays when it becomes the source of
// the next migration.
func TestMigratedBefore(t *testing.T) {
	for _, known := range []bool{true, false} {
		name := "first VMIM collected"
		if known {
			name = "first VMIM kept"
		}
		t.Run(name, func(t *testing.T) {
			s, vmi, source := newScene()
			m1, second := s.running(vmi, source, "m1", "second")
			succeed(vmi, m1)
			source.Status.Phase = corev1.PodSucceeded
			if !known {
				s.forget(m1)
			}
			s.expect(t)

			m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
			m2.Status.MigrationState.SourcePod = "second"
			s.expect(t, flight{"uid-m2", quota.Queued, onePod, nil})
			refuse(m2, corev1.ConditionTrue)
			s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil})

			third := s.launcher(vmi, "third", m2.UID)
			cost := larger(third)
			s.expect(t, flight{"uid-m2", quota.Charged, cost, cost})
			s.forget(m2)
			m2, _ = s.running(vmi, second, "m2", "unused")
			s.Pods = s.Pods[:len(s.Pods)-1]
			vmi.Status.MigrationState.TargetPod = "third"
			s.expect(t, flight{"uid-m2", quota.Charged, cost, cost})

			succeed(vmi, m2) // second is the losing pod now
			s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod})
			s.forget(m2)
			s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod})
			second.Status.Phase = corev1.PodSucceeded
			s.expect(t)
		})
	}
	t.Run("in the same second", func(t *testing.T) {
		s, vmi, source := newScene()
		source.Labels[kubevirtv1.MigrationJobLabel] = "uid-m0"
		_, target := s.running(vmi, source, "m1", "target")
		target.CreationTimestamp = source.CreationTimestamp
		s.expect(t, charged)
	})
	t.Run("failed once, then succeeded", func(t *testing.T) {
		s, vmi, source := newScene()
		m0, target := s.running(vmi, source, "m0", "target0")
		fail(vmi, m0)
		target.Status.Phase = corev1.PodSucceeded
		m1, _ := s.running(vmi, source, "m1", "target")
		succeed(vmi, m1)
		s.expect(t, charged)
	})
	t.Run("without names", func(t *testing.T) {
		s, vmi, source := newScene()
		hangs := larger(source)
		m1 := s.vmim(vmi, "m1", kubevirtv1.MigrationSucceeded)
		second := s.launcher(vmi, "second", m1.UID)
		m1.Status.MigrationState = nil
		s.expect(t, flight{"uid-m1", quota.Charged, hangs, hangs})
		s.forget(m1)
		m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationSucceeded)
		s.launcher(vmi, "third", m2.UID)
		m2.Status.MigrationState = nil
		s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod}) // second
		second.Status.Phase = corev1.PodSucceeded
		s.expect(t, flight{"uid-m2", quota.Charged, hangs, hangs})
	})
	t.Run("failed", func(t *testing.T) {
		s, vmi, source := newScene()
		m1, target := s.running(vmi, source, "m1", "target")
		fail(vmi, m1)
		target.Status.Phase = corev1.PodSucceeded
		m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
		s.expect(t, flight{"uid-m2", quota.Queued, onePod, nil})
		s.launcher(vmi, "target2", m2.UID)
		s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod})
	})
	t.Run("without any VMI status", func(t *testing.T) {
		s, vmi, source := newScene()
		m1, second := s.running(vmi, source, "m1", "second")
		succeed(vmi, m1)
		vmi.Status.MigrationState = nil
		cost := larger(source)
		s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
		source.Status.Phase = corev1.PodSucceeded
		m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationScheduling)
		m2.Status.MigrationState.SourcePod = "second"
		larger(second)
		s.launcher(vmi, "third", m2.UID)
		s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod})
	})
}

// TestChainWithAHangingSource: KubeVirt lets no migration begin while the VMI has two
// pods, but its cache may lag.
func TestChainWithAHangingSource(t *testing.T) {
	s, vmi, source := newScene()
	hangs := larger(source)
	m1, second := s.running(vmi, source, "m1", "second")
	succeed(vmi, m1)
	first := flight{"uid-m1", quota.Charged, hangs, hangs}
	s.expect(t, first)

	m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
	m2.Status.MigrationState.SourcePod = "second"
	s.expect(t, first, flight{"uid-m2", quota.Queued, onePod, nil})
	s.forget(m2)

	m2, third := s.running(vmi, second, "m2", "third")
	s.expect(t, first, flight{"uid-m2", quota.Charged, onePod, onePod})
	succeed(vmi, m2)
	s.expect(t, first, flight{"uid-m2", quota.Charged, onePod, onePod})

	m3, _ := s.running(vmi, third, "m3", "fourth")
	second.Status.Phase = corev1.PodSucceeded
	s.expect(t, first, flight{"uid-m3", quota.Charged, onePod, onePod})
	fail(vmi, m3)
	s.expect(t, first, flight{"uid-m3", quota.Charged, onePod, onePod})
	source.Status.Phase = corev1.PodSucceeded
	s.expect(t, flight{"uid-m3", quota.Charged, onePod, onePod})
}

// TestTwoVMIMsOfOneVMI: KubeVirt starts one of them, and the other one waits until
// the VMI is back to one pod.
func TestTwoVMIMsOfOneVMI(t *testing.T) {
	second := flight{"uid-m2", quota.Queued, onePod, nil}
	t.Run("one runs", func(t *testing.T) {
		s, vmi, source := newScene()
		s.running(vmi, source, "m1", "target")
		m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
		s.expect(t, charged, second)
		refuse(m2, corev1.ConditionTrue) // before the first one had its pod
		s.expect(t, charged, second)
	})
	t.Run("the younger one runs", func(t *testing.T) {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		s.running(vmi, source, "m2", "target")
		s.expect(t, queued, flight{"uid-m2", quota.Charged, onePod, onePod})
	})
	t.Run("one is refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
		s.refused(vmi, "m2")
		s.expect(t, queued, flight{"uid-m2", quota.Blocked, onePod, nil})
	})
	t.Run("both are refused", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		s.refused(vmi, "m2")
		s.expect(t, blocked, second)
	})
	t.Run("one was created and not seen", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling)
		s.refused(vmi, "m2")
		s.expect(t, charged, second)
	})
}

func TestVMIsDoNotMix(t *testing.T) {
	s, vm1, source := newScene()
	vm2 := s.vmi("vm2")
	source2 := s.launcher(vm2, "source2", "")
	s.running(vm1, source, "m1", "target")
	s.running(vm2, source2, "m2", "target2")
	cost := larger(s.Pods[3])
	s.refused(s.vmi("vm3"), "m3")
	s.launcher(s.VMIs[2], "source3", "")
	s.expect(t, charged, flight{"uid-m2", quota.Charged, cost, cost}, flight{"uid-m3", quota.Blocked, onePod, nil})

	got := migration.InFlight(s.Snapshot)
	require.Equal(t, []string{"vm1", "vm2", "vm3"}, []string{got[0].VMI, got[1].VMI, got[2].VMI})
}

func TestVMIMOfNoVMI(t *testing.T) {
	s, vmi, _ := newScene()
	s.refused(vmi, "m1").Spec.VMIName = "another"
	s.expect(t)
}

func TestDecentralized(t *testing.T) {
	none := corev1.ResourceList{}
	for _, name := range []string{"source", "target"} {
		t.Run(name, func(t *testing.T) {
			s, vmi, _ := newScene()
			m := s.refused(vmi, "m1")
			if name == "source" {
				m.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{MigrationID: "x"}
			} else {
				m.Spec.Receive = &kubevirtv1.VirtualMachineInstanceMigrationTarget{MigrationID: "x"}
			}
			for _, phase := range append(createdPhases, kubevirtv1.MigrationPhaseUnset, kubevirtv1.MigrationPending,
				kubevirtv1.MigrationWaitingForSync, kubevirtv1.MigrationSynchronizing) {
				m.Status.Phase = phase
				s.expect(t, flight{"uid-m1", quota.Queued, none, nil})
			}
			m.DeletionTimestamp = s.deleted()
			s.expect(t)
			m.DeletionTimestamp, m.Status.Phase = nil, kubevirtv1.MigrationSucceeded
			s.expect(t)
		})
	}
	t.Run("both ends in one VMIM are none", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.refused(vmi, "m1")
		m.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{MigrationID: "x"}
		m.Spec.Receive = &kubevirtv1.VirtualMachineInstanceMigrationTarget{MigrationID: "x"}
		s.expect(t, blocked)
	})
}

func TestWhatPeopleAndTheBudgetSee(t *testing.T) {
	priorities := map[kubevirtv1.MigrationPriority]int32{
		kubevirtv1.PrioritySystemCritical: 100, kubevirtv1.PriorityUserTriggered: 50,
		kubevirtv1.PrioritySystemMaintenance: 20, "": 0, "unheard of": 0,
	}
	for priority, want := range priorities {
		s, vmi, _ := newScene()
		m := s.refused(vmi, "m1")
		m.Spec.Priority = &priority
		got := migration.InFlight(s.Snapshot)
		require.Len(t, got, 1)
		require.Equal(t, want, got[0].Priority, "%q", priority)
		require.Equal(t, "vm1", got[0].VMI)
		require.Equal(t, m.CreationTimestamp, got[0].Created)
	}
	s, vmi, _ := newScene()
	s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
	require.Zero(t, migration.InFlight(s.Snapshot)[0].Priority)

	// Without a VMIM, the age of the target pod has to do.
	m := s.Migrations[0]
	target := s.launcher(vmi, "target", m.UID)
	target.DeletionTimestamp = s.deleted()
	s.forget(m)
	require.Equal(t, target.CreationTimestamp, migration.InFlight(s.Snapshot)[0].Created)
}

// TestForged: whoever may create pods in the namespace can write labels and owner
// references. That alone must not give anybody room.
func TestForged(t *testing.T) {
	t.Run("beside a migration", func(t *testing.T) {
		s, vmi, source := newScene()
		s.running(vmi, source, "m1", "target")
		larger(s.launcher(vmi, "forged", "uid-none"))
		s.expect(t, charged)
		delete(vmi.Status.ActivePods, "uid-forged")
		s.expect(t, charged)
	})
	t.Run("more than one", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.launcher(vmi, "forged", "uid-none").DeletionTimestamp = s.deleted()
		s.launcher(vmi, "forged2", "uid-none2").DeletionTimestamp = s.deleted()
		s.expect(t)
	})
	t.Run("second target of a migration", func(t *testing.T) {
		s, vmi, source := newScene()
		s.running(vmi, source, "m1", "target")
		larger(s.launcher(vmi, "forged", "uid-m1"))
		s.expect(t, charged)
	})
	t.Run("second target, older than the one that statuses name", func(t *testing.T) {
		s, vmi, source := newScene()
		larger(s.launcher(vmi, "forged", "uid-m1"))
		m, _ := s.running(vmi, source, "m1", "target")
		s.expect(t, charged)
		fail(vmi, m)
		vmi.Status.MigrationState = nil
		s.expect(t, charged)
	})
	t.Run("second target before the VMI names the first", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling)
		s.launcher(vmi, "target", m.UID)
		larger(s.launcher(vmi, "forged", m.UID))
		s.expect(t, charged)
	})
	t.Run("migration of another VMI", func(t *testing.T) {
		s, vmi, _ := newScene()
		vm2 := s.vmi("vm2")
		s.launcher(vm2, "source2", "")
		s.refused(vm2, "m2")
		s.launcher(vmi, "forged", "uid-m2")
		s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil})
	})
	t.Run("migration of another VMI, beside one of its own", func(t *testing.T) {
		s, vmi, _ := newScene()
		vm2 := s.vmi("vm2")
		s.launcher(vm2, "source2", "")
		s.refused(vm2, "m2")
		s.launcher(vmi, "target", "uid-m1").DeletionTimestamp = s.deleted()
		s.launcher(vmi, "forged", "uid-m2")
		s.expect(t, charged, flight{"uid-m2", quota.Blocked, onePod, nil})
	})
	t.Run("one job label on two VMIs", func(t *testing.T) {
		s, vmi, _ := newScene()
		vm2 := s.vmi("vm2")
		s.launcher(vm2, "source2", "")
		s.launcher(vmi, "forged", "uid-none").DeletionTimestamp = s.deleted()
		s.launcher(vm2, "forged2", "uid-none").DeletionTimestamp = s.deleted()
		for range 20 { // orders of a map
			got := migration.InFlight(s.Snapshot)
			require.Len(t, got, 1)
			require.Equal(t, "vm1", got[0].VMI)
		}
	})
	t.Run("source of a migration long over", func(t *testing.T) {
		s, vmi, source := newScene()
		m, _ := s.running(vmi, source, "m1", "target")
		succeed(vmi, m)
		source.Status.Phase = corev1.PodSucceeded
		larger(s.launcher(vmi, "forged", ""))
		s.expect(t)
		s.Pods[2].CreationTimestamp = source.CreationTimestamp // older than the target
		s.expect(t)
	})
	t.Run("name of a source long gone", func(t *testing.T) {
		s, vmi, source := newScene()
		m, _ := s.running(vmi, source, "m1", "target")
		succeed(vmi, m)
		s.forget(source)
		s.launcher(vmi, "source", "")
		s.expect(t)
	})
	t.Run("second target of a migration that is over, without names", func(t *testing.T) {
		s, vmi, source := newScene()
		s.vmim(vmi, "m1", kubevirtv1.MigrationSucceeded).Status.MigrationState = nil
		s.launcher(vmi, "target", "uid-m1")
		s.launcher(vmi, "forged", "uid-m1")
		source.Status.Phase = corev1.PodSucceeded
		s.expect(t)
	})
	t.Run("target of a migration long over", func(t *testing.T) {
		s, vmi, source := newScene()
		m1, target := s.running(vmi, source, "m1", "target")
		succeed(vmi, m1)
		set(s.launcher(vmi, "forged", "uid-m1"), "memory=10Gi", "memory=20Gi")
		s.expect(t, charged) // source
		source.Status.Phase = corev1.PodSucceeded
		s.expect(t)
		s.refused(vmi, "m2")
		s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil}) // not as large as the forged one
		s.Migrations = nil
		s.expect(t)
		target.CreationTimestamp = s.Pods[2].CreationTimestamp
		s.expect(t)
	})
	t.Run("no label", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.launcher(vmi, "forged", "")
		s.expect(t)
	})
}

// TestWhichPodTheVMIRunsIn: statuses tell, where there is more than a source and a
// target.
func TestWhichPodTheVMIRunsIn(t *testing.T) {
	// After a first migration, which nobody remembers, the VMI runs in second. There
	// is an older and smaller pod, so that a target would seem to have grown.
	begin := func() (*scene, *kubevirtv1.VirtualMachineInstance, *corev1.Pod) {
		s, vmi, source := newScene()
		m1, second := s.running(vmi, source, "m1", "second")
		source.Name = "older"
		set(source, "memory=500Mi", "memory=1000Mi")
		s.forget(m1)
		vmi.Status.MigrationState = nil
		return s, vmi, second
	}
	running := flight{"uid-m2", quota.Charged, onePod, onePod}
	t.Run("by the VMI", func(t *testing.T) {
		s, vmi, second := begin()
		m2, _ := s.running(vmi, second, "m2", "third")
		hotPlug(vmi, memoryChange)
		s.expect(t, running)
		fail(vmi, m2)
		s.forget(m2)
		s.expect(t, running)
	})
	t.Run("by the VMIM", func(t *testing.T) {
		s, vmi, _ := begin()
		s.vmim(vmi, "m0", kubevirtv1.MigrationFailed).Status.MigrationState.SourcePod = "older"
		m2 := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
		m2.Status.MigrationState.SourcePod = "second"
		s.launcher(vmi, "third", m2.UID)
		hotPlug(vmi, memoryChange)
		s.expect(t, running)
	})
	t.Run("by the labels", func(t *testing.T) {
		s, vmi, source := newScene()
		m1 := s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
		m1.Status.MigrationState = nil
		target := s.launcher(vmi, "target", m1.UID)
		target.CreationTimestamp = source.CreationTimestamp
		target.UID = "uid-a" // so it is the first
		cost := larger(target)
		s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
	})
	t.Run("by the age", func(t *testing.T) {
		s, vmi, source := newScene()
		s.vmim(vmi, "m0", kubevirtv1.MigrationFailed)
		m1 := s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
		source.Labels[kubevirtv1.MigrationJobLabel] = "uid-m0"
		m1.Status.MigrationState = nil
		cost := larger(s.launcher(vmi, "target", m1.UID))
		s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
	})
}

// TestOneUIDTwice: no API server gives two objects one UID. The oldest counts.
func TestOneUIDTwice(t *testing.T) {
	s, vm1, _ := newScene()
	vm2 := s.vmi("vm2")
	s.launcher(vm2, "source2", "")
	s.refused(vm1, "m1")
	s.vmim(vm1, "m2", kubevirtv1.MigrationPending).UID = "uid-m1"
	s.vmim(vm2, "m3", kubevirtv1.MigrationPending).UID = "uid-m1"
	for range 2 {
		s.expect(t, blocked)
		slices.Reverse(s.Migrations)
	}
	require.Equal(t, "vm1", migration.InFlight(s.Snapshot)[0].VMI)
}

func TestForeignPods(t *testing.T) {
	foreign := map[string]func(*corev1.Pod){
		"not a virt-launcher": func(pod *corev1.Pod) { pod.Labels[kubevirtv1.AppLabel] = "virt-exportserver" },
		"of another VMI":      func(pod *corev1.Pod) { pod.Labels[kubevirtv1.CreatedByLabel] = "uid-vm2" },
		"owned by another":    func(pod *corev1.Pod) { pod.OwnerReferences[0].UID = "uid-vm2" },
		"no labels":           func(pod *corev1.Pod) { pod.Labels = nil },
	}
	for name, change := range foreign {
		t.Run(name, func(t *testing.T) {
			s, vmi, source := newScene()
			_, target := s.running(vmi, source, "m1", "target")
			change(target)
			// KubeVirt says it was created; the caches do not have it.
			s.expect(t, charged)
			s.Migrations[0].Status.Phase = kubevirtv1.MigrationPending
			s.expect(t, queued)
		})
	}
}

func TestNilEntries(t *testing.T) {
	s, vmi, source := newScene()
	s.running(vmi, source, "m1", "target")
	s.Migrations = append([]*kubevirtv1.VirtualMachineInstanceMigration{nil}, s.Migrations...)
	s.VMIs = append([]*kubevirtv1.VirtualMachineInstance{nil}, s.VMIs...)
	s.Pods = append([]*corev1.Pod{nil}, s.Pods...)
	s.LimitRanges = []*corev1.LimitRange{nil}
	s.PVCs = []*corev1.PersistentVolumeClaim{nil}
	s.expect(t, charged)
}

func TestEmptyObjects(t *testing.T) {
	s := migration.Snapshot{
		Migrations:  []*kubevirtv1.VirtualMachineInstanceMigration{{}, {}},
		VMIs:        []*kubevirtv1.VirtualMachineInstance{{}, {}},
		Pods:        []*corev1.Pod{{}, {}, {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AppLabel: "virt-launcher"}}}},
		LimitRanges: []*corev1.LimitRange{{}},
		PVCs:        []*corev1.PersistentVolumeClaim{{}},
		Namespace:   &corev1.Namespace{},
	}
	got := migration.InFlight(s)
	require.LessOrEqual(t, len(got), 1)

	// Objects without UIDs do not stand in the way of others.
	full, vmi, source := newScene()
	full.running(vmi, source, "m1", "target")
	full.Migrations = append(full.Migrations, s.Migrations...)
	full.VMIs = append(full.VMIs, s.VMIs...)
	full.Pods = append(full.Pods, s.Pods...)
	require.Contains(t, uids(migration.InFlight(full.Snapshot)), types.UID("uid-m1"))
}

func uids(migrations []quota.Migration) []types.UID {
	uids := make([]types.UID, len(migrations))
	for i, m := range migrations {
		uids[i] = m.UID
	}
	return uids
}
