package migration_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	s := newScene(t)
	s.vmi("vm2")
	require.Nil(t, migration.InFlight(s.Snapshot))
}

// The phases of a migration whose target pod KubeVirt has not created, and those that it enters
// because that is there.
var (
	earlyPhases = []kubevirtv1.VirtualMachineInstanceMigrationPhase{
		kubevirtv1.MigrationPhaseUnset, kubevirtv1.MigrationPending, kubevirtv1.MigrationWaitingForSync, kubevirtv1.MigrationSynchronizing,
	}
	createdPhases = []kubevirtv1.VirtualMachineInstanceMigrationPhase{
		kubevirtv1.MigrationScheduling, kubevirtv1.MigrationScheduled, kubevirtv1.MigrationPreparingTarget,
		kubevirtv1.MigrationTargetReady, kubevirtv1.MigrationRunning,
	}
)

// TestPhases: also where the cache of pods lags.
func TestPhases(t *testing.T) {
	for _, phase := range earlyPhases {
		s := newScene(t)
		s.vmim(s.vm, "m1", phase)
		s.expect(queued)
	}
	for _, phase := range createdPhases {
		s := newScene(t)
		s.vmim(s.vm, "m1", phase)
		s.expect(charged)
		s = newScene(t)
		m, _ := s.running(s.vm, s.source, "m1", "target")
		m.Status.Phase = phase
		s.expect(charged)
	}
}

// TestWaiting: quota has refused the target pod.
func TestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		then func(s *scene, m *kubevirtv1.VirtualMachineInstanceMigration)
		want *flight
	}{
		"blocked": {func(*scene, *kubevirtv1.VirtualMachineInstanceMigration) {}, &blocked},
		"no longer": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) {
			m.Status.Conditions[0].Status = corev1.ConditionFalse
		}, &queued},
		"another condition": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) { m.Status.Conditions[0].Type = "Another" }, &queued},
		"before Pending": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) {
			m.Status.Phase = kubevirtv1.MigrationPhaseUnset
		}, &queued},
		"pod there": {func(s *scene, m *kubevirtv1.VirtualMachineInstanceMigration) { s.launcher(s.vm, "target", m.UID) }, &charged},
		"failed": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) {
			m.Status.Phase = kubevirtv1.MigrationFailed
		}, nil},
		"succeeded": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) {
			m.Status.Phase = kubevirtv1.MigrationSucceeded
		}, nil},
		"aborted":     {func(s *scene, m *kubevirtv1.VirtualMachineInstanceMigration) { m.DeletionTimestamp = s.deleted() }, nil},
		"VMI deleted": {func(s *scene, _ *kubevirtv1.VirtualMachineInstanceMigration) { s.vm.DeletionTimestamp = s.deleted() }, nil},
		"VMI succeeded": {func(s *scene, _ *kubevirtv1.VirtualMachineInstanceMigration) {
			s.vm.Status.Phase = kubevirtv1.Succeeded
		}, nil},
		"VMI failed": {func(s *scene, _ *kubevirtv1.VirtualMachineInstanceMigration) { s.vm.Status.Phase = kubevirtv1.Failed }, nil},
		"VMI gone":   {func(s *scene, _ *kubevirtv1.VirtualMachineInstanceMigration) { s.forget(s.vm) }, nil},
		"source ended": {func(s *scene, _ *kubevirtv1.VirtualMachineInstanceMigration) {
			s.source.Status.Phase = corev1.PodFailed
		}, nil},
		"of no VMI": {func(_ *scene, m *kubevirtv1.VirtualMachineInstanceMigration) { m.Spec.VMIName = "another" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.then(s, s.refused(s.vm, "m1"))
			if c.want == nil {
				s.expect()
			} else {
				s.expect(*c.want)
			}
		})
	}
}

// TestCharged: something ends before anybody says why.
func TestCharged(t *testing.T) {
	for name, end := range map[string]func(s *scene, target *corev1.Pod){
		"VMI gone":    func(s *scene, _ *corev1.Pod) { s.forget(s.vm) },
		"source ends": func(s *scene, _ *corev1.Pod) { s.source.Status.Phase = corev1.PodSucceeded },
		"target ends": func(_ *scene, target *corev1.Pod) { target.Status.Phase = corev1.PodFailed },
		"VMI deleted": func(s *scene, target *corev1.Pod) {
			s.vm.DeletionTimestamp, s.source.DeletionTimestamp, target.DeletionTimestamp = s.deleted(), s.deleted(), s.deleted()
			s.expect(charged)
			target.Status.Phase = corev1.PodSucceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			_, target := s.running(s.vm, s.source, "m1", "target")
			end(s, target)
			s.expect()
		})
	}
}

func TestTargetPodNotSeenYet(t *testing.T) {
	play(t, map[string]func(s *scene){
		"no pod at all": func(s *scene) {
			m := s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
			s.forget(s.source)
			// Of the VMI: 1 core, a tenth of it requested, 1Gi with 270Mi of overhead, and
			// twice that as the limit.
			estimate := list(`pods=1 count/pods=1
				requests.cpu=100m cpu=100m limits.cpu=1
				requests.memory=1294Mi memory=1294Mi limits.memory=2588Mi`)
			s.expect(flight{"uid-m1", quota.Queued, estimate, nil})
			m.Status.Phase = kubevirtv1.MigrationScheduling
			s.expect(flight{"uid-m1", quota.Charged, estimate, estimate})

			s.vm.Spec.Domain.Resources.Requests = nil
			s.vm.Status.CurrentCPUTopology.Cores = 3
			estimate = with(estimate, "requests.cpu=300m cpu=300m limits.cpu=3")
			s.expect(flight{"uid-m1", quota.Charged, estimate, estimate})
		},
		"succeeded before the pod was seen": func(s *scene) {
			m := s.vmim(s.vm, "m1", kubevirtv1.MigrationRunning)
			s.vm.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: m.UID, Completed: true}
			s.expect()
		},
		"the VMI ends": func(s *scene) {
			s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling)
			s.vm.DeletionTimestamp = s.deleted()
			s.expect()
		},
	})
}

// larger makes pod cost limits.memory=3Gi in all, to tell it from the others.
func larger(pod *corev1.Pod) corev1.ResourceList {
	pod.Spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = list("q=3161225472")["q"] // 3Gi - 60M
	return with(onePod, "limits.memory=3Gi")
}

func TestFailed(t *testing.T) {
	s := newScene(t)
	m, target := s.running(s.vm, s.source, "m1", "target")
	cost := larger(target)
	still := flight{"uid-m1", quota.Charged, cost, cost}
	s.expect(still)

	s.vm.Status.MigrationState.Completed, s.vm.Status.MigrationState.Failed = true, true
	s.expect(still)
	fail(s.vm, m)
	s.expect(still)
	s.forget(m)
	s.expect(still)
	target.Status.Phase = corev1.PodSucceeded
	s.expect()
}

func TestAborted(t *testing.T) {
	play(t, map[string]func(s *scene){
		"while Running": func(s *scene) {
			m, target := s.running(s.vm, s.source, "m1", "target")
			m.DeletionTimestamp = s.deleted()
			s.expect(charged)
			s.vm.Status.MigrationState.AbortRequested = true
			fail(s.vm, m)
			s.expect(charged)
			s.forget(m)
			s.expect(charged)
			target.Status.Phase = corev1.PodSucceeded
			s.expect()
		},
		"before the VMI says anything": func(s *scene) {
			m := s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling)
			target := s.launcher(s.vm, "target", m.UID)
			m.DeletionTimestamp = s.deleted()
			s.expect(charged)
			target.DeletionTimestamp = s.deleted()
			s.expect(charged)
			s.forget(m)
			s.expect(charged)
			s.forget(target)
			s.expect()
		},
		"pod gone before the VMIM": func(s *scene) {
			s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling).DeletionTimestamp = s.deleted()
			s.expect()
		},
	})
}

func TestSucceeded(t *testing.T) {
	s := newScene(t)
	cost := larger(s.source)
	m, _ := s.running(s.vm, s.source, "m1", "target")
	s.expect(charged) // the target

	// From now on it is the source that is one too many.
	still := flight{"uid-m1", quota.Charged, cost, cost}
	s.vm.Status.MigrationState.Completed = true
	s.expect(still)
	succeed(s.vm, m)
	s.expect(still)
	s.forget(m)
	s.expect(still)

	// The source hangs, and is deleted.
	grace := int64(35)
	s.source.DeletionTimestamp, s.source.DeletionGracePeriodSeconds = s.deleted(), &grace
	s.expect(still)
	s.Now = s.source.DeletionTimestamp.Add(35 * time.Second)
	s.expect(still)
	s.Now = s.source.DeletionTimestamp.Add(36 * time.Second)
	s.expect()
	s.Now = time.Time{}
	s.expect(still)
	s.source.Status.Phase = corev1.PodSucceeded
	s.expect()
}

func TestSuccessThatOnlyTheVMIMTells(t *testing.T) {
	s := newScene(t)
	cost := larger(s.source)
	m, _ := s.running(s.vm, s.source, "m1", "target")
	m.Status.Phase = kubevirtv1.MigrationSucceeded
	s.expect(flight{"uid-m1", quota.Charged, cost, cost})
	s.vm.Status.MigrationState = nil
	s.expect(flight{"uid-m1", quota.Charged, cost, cost})
}

// TestMigratedBefore: the label of a target pod stays when it becomes the source of
// the next migration.
func TestMigratedBefore(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("first VMIM kept: %t", known), func(t *testing.T) {
			s := newScene(t)
			m1, second := s.running(s.vm, s.source, "m1", "second")
			succeed(s.vm, m1)
			s.source.Status.Phase = corev1.PodSucceeded
			if !known {
				s.forget(m1)
			}
			s.expect()

			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
			m2.Status.MigrationState.SourcePod = "second"
			s.expect(flight{"uid-m2", quota.Queued, onePod, nil})
			condition(m2, rejected, corev1.ConditionTrue)
			s.expect(flight{"uid-m2", quota.Blocked, onePod, nil})

			third := s.launcher(s.vm, "third", m2.UID)
			cost := larger(third)
			s.expect(flight{"uid-m2", quota.Charged, cost, cost})
			s.forget(m2)
			m2, _ = s.running(s.vm, second, "m2", "unused")
			s.Pods = s.Pods[:len(s.Pods)-1]
			s.vm.Status.MigrationState.TargetPod = "third"
			s.expect(flight{"uid-m2", quota.Charged, cost, cost})

			succeed(s.vm, m2) // second is the losing pod now
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod})
			s.forget(m2)
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod})
			second.Status.Phase = corev1.PodSucceeded
			s.expect()
		})
	}
	play(t, map[string]func(s *scene){
		"in the same second": func(s *scene) {
			s.source.Labels[kubevirtv1.MigrationJobLabel] = "uid-m0"
			_, target := s.running(s.vm, s.source, "m1", "target")
			target.CreationTimestamp = s.source.CreationTimestamp
			s.expect(charged)
		},
		"failed once, then succeeded": func(s *scene) {
			m0, target := s.running(s.vm, s.source, "m0", "target0")
			fail(s.vm, m0)
			target.Status.Phase = corev1.PodSucceeded
			m1, _ := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m1)
			s.expect(charged)
		},
		"without names": func(s *scene) {
			hangs := larger(s.source)
			m1 := s.vmim(s.vm, "m1", kubevirtv1.MigrationSucceeded)
			second := s.launcher(s.vm, "second", m1.UID)
			m1.Status.MigrationState = nil
			s.expect(flight{"uid-m1", quota.Charged, hangs, hangs})
			s.forget(m1)
			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationSucceeded)
			s.launcher(s.vm, "third", m2.UID)
			m2.Status.MigrationState = nil
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod}) // second
			second.Status.Phase = corev1.PodSucceeded
			s.expect(flight{"uid-m2", quota.Charged, hangs, hangs})
		},
		"failed": func(s *scene) {
			m1, target := s.running(s.vm, s.source, "m1", "target")
			fail(s.vm, m1)
			target.Status.Phase = corev1.PodSucceeded
			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
			s.expect(flight{"uid-m2", quota.Queued, onePod, nil})
			s.launcher(s.vm, "target2", m2.UID)
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod})
		},
		"without any VMI status": func(s *scene) {
			m1, second := s.running(s.vm, s.source, "m1", "second")
			succeed(s.vm, m1)
			s.vm.Status.MigrationState = nil
			cost := larger(s.source)
			s.expect(flight{"uid-m1", quota.Charged, cost, cost})
			s.source.Status.Phase = corev1.PodSucceeded
			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationScheduling)
			m2.Status.MigrationState.SourcePod = "second"
			larger(second)
			s.launcher(s.vm, "third", m2.UID)
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod})
		},
	})
}

// TestChainWithAHangingSource: KubeVirt lets no migration begin while the VMI has two
// pods, but its cache may lag.
func TestChainWithAHangingSource(t *testing.T) {
	s := newScene(t)
	hangs := larger(s.source)
	m1, second := s.running(s.vm, s.source, "m1", "second")
	succeed(s.vm, m1)
	first := flight{"uid-m1", quota.Charged, hangs, hangs}
	s.expect(first)

	m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
	m2.Status.MigrationState.SourcePod = "second"
	s.expect(first, flight{"uid-m2", quota.Queued, onePod, nil})
	s.forget(m2)

	m2, third := s.running(s.vm, second, "m2", "third")
	s.expect(first, flight{"uid-m2", quota.Charged, onePod, onePod})
	succeed(s.vm, m2)
	s.expect(first, flight{"uid-m2", quota.Charged, onePod, onePod})

	m3, _ := s.running(s.vm, third, "m3", "fourth")
	second.Status.Phase = corev1.PodSucceeded
	s.expect(first, flight{"uid-m3", quota.Charged, onePod, onePod})
	fail(s.vm, m3)
	s.expect(first, flight{"uid-m3", quota.Charged, onePod, onePod})
	s.source.Status.Phase = corev1.PodSucceeded
	s.expect(flight{"uid-m3", quota.Charged, onePod, onePod})
}

// TestTwoVMIMsOfOneVMI: KubeVirt starts one of them, and the other one waits until
// the VMI is back to one pod.
func TestTwoVMIMsOfOneVMI(t *testing.T) {
	second := flight{"uid-m2", quota.Queued, onePod, nil}
	play(t, map[string]func(s *scene){
		"one runs": func(s *scene) {
			s.running(s.vm, s.source, "m1", "target")
			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
			s.expect(charged, second)
			condition(m2, rejected, corev1.ConditionTrue) // before the first one had its pod
			s.expect(charged, second)
		},
		"the younger one runs": func(s *scene) {
			s.refused(s.vm, "m1")
			s.running(s.vm, s.source, "m2", "target")
			s.expect(queued, flight{"uid-m2", quota.Charged, onePod, onePod})
		},
		"one is refused": func(s *scene) {
			s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
			s.refused(s.vm, "m2")
			s.expect(queued, flight{"uid-m2", quota.Blocked, onePod, nil})
		},
		"both are refused": func(s *scene) {
			s.refused(s.vm, "m1")
			s.refused(s.vm, "m2")
			s.expect(blocked, second)
		},
		"one was created and not seen": func(s *scene) {
			s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling)
			s.refused(s.vm, "m2")
			s.expect(charged, second)
		},
	})
}

func TestVMIsDoNotMix(t *testing.T) {
	s := newScene(t)
	vm2 := s.vmi("vm2")
	source2 := s.launcher(vm2, "source2", "")
	s.running(s.vm, s.source, "m1", "target")
	s.running(vm2, source2, "m2", "target2")
	cost := larger(s.Pods[3])
	s.refused(s.vmi("vm3"), "m3")
	s.launcher(s.VMIs[2], "source3", "")
	s.expect(charged, flight{"uid-m2", quota.Charged, cost, cost}, flight{"uid-m3", quota.Blocked, onePod, nil})

	got := migration.InFlight(s.Snapshot)
	require.Equal(t, []string{"vm1", "vm2", "vm3"}, []string{got[0].VMI, got[1].VMI, got[2].VMI})
}

func TestDecentralized(t *testing.T) {
	none := flight{"uid-m1", quota.Queued, corev1.ResourceList{}, nil}
	sendTo, receive := &kubevirtv1.VirtualMachineInstanceMigrationSource{}, &kubevirtv1.VirtualMachineInstanceMigrationTarget{}
	for _, spec := range []kubevirtv1.VirtualMachineInstanceMigrationSpec{{SendTo: sendTo}, {Receive: receive}} {
		s := newScene(t)
		m := s.refused(s.vm, "m1")
		m.Spec.SendTo, m.Spec.Receive = spec.SendTo, spec.Receive
		for _, phase := range slices.Concat(earlyPhases, createdPhases) {
			m.Status.Phase = phase
			s.expect(none)
		}
		m.DeletionTimestamp = s.deleted()
		s.expect()
		m.DeletionTimestamp, m.Status.Phase = nil, kubevirtv1.MigrationSucceeded
		s.expect()
	}
	s := newScene(t)
	m := s.refused(s.vm, "m1")
	m.Spec.SendTo, m.Spec.Receive = sendTo, receive
	s.expect(blocked) // both ends in one VMIM are none
}

func TestWhatPeopleAndTheBudgetSee(t *testing.T) {
	priorities := map[kubevirtv1.MigrationPriority]int32{
		kubevirtv1.PrioritySystemCritical: 100, kubevirtv1.PriorityUserTriggered: 50,
		kubevirtv1.PrioritySystemMaintenance: 20, "": 0, "unheard of": 0,
	}
	for priority, want := range priorities {
		s := newScene(t)
		m := s.refused(s.vm, "m1")
		m.Spec.Priority = &priority
		got := migration.InFlight(s.Snapshot)
		require.Len(t, got, 1)
		require.Equal(t, want, got[0].Priority, "%q", priority)
		require.Equal(t, "vm1", got[0].VMI)
		require.Equal(t, m.CreationTimestamp, got[0].Created)
	}
	s := newScene(t)
	s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
	require.Zero(t, migration.InFlight(s.Snapshot)[0].Priority)

	// Without a VMIM, the age of the target pod has to do.
	m := s.Migrations[0]
	target := s.launcher(s.vm, "target", m.UID)
	target.DeletionTimestamp = s.deleted()
	s.forget(m)
	require.Equal(t, target.CreationTimestamp, migration.InFlight(s.Snapshot)[0].Created)
}

// TestForged: whoever may create pods in the namespace can write labels and owner
// references. That alone must not give anybody room.
func TestForged(t *testing.T) {
	play(t, map[string]func(s *scene){
		"beside a migration": func(s *scene) {
			s.running(s.vm, s.source, "m1", "target")
			larger(s.launcher(s.vm, "forged", "uid-none"))
			s.expect(charged)
		},
		"more than one": func(s *scene) {
			s.launcher(s.vm, "forged", "uid-none").DeletionTimestamp = s.deleted()
			s.launcher(s.vm, "forged2", "uid-none2").DeletionTimestamp = s.deleted()
			s.expect()
		},
		"second target of a migration": func(s *scene) {
			s.running(s.vm, s.source, "m1", "target")
			larger(s.launcher(s.vm, "forged", "uid-m1"))
			s.expect(charged)
		},
		"second target, older than the one that statuses name": func(s *scene) {
			larger(s.launcher(s.vm, "forged", "uid-m1"))
			m, _ := s.running(s.vm, s.source, "m1", "target")
			s.expect(charged)
			fail(s.vm, m)
			s.vm.Status.MigrationState = nil
			s.expect(charged)
		},
		"second target before the VMI names the first": func(s *scene) {
			m := s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling)
			s.launcher(s.vm, "target", m.UID)
			larger(s.launcher(s.vm, "forged", m.UID))
			s.expect(charged)
		},
		"migration of another VMI": func(s *scene) {
			vm2 := s.vmi("vm2")
			s.launcher(vm2, "source2", "")
			s.refused(vm2, "m2")
			s.launcher(s.vm, "forged", "uid-m2")
			s.expect(flight{"uid-m2", quota.Blocked, onePod, nil})
		},
		"migration of another VMI, beside one of its own": func(s *scene) {
			vm2 := s.vmi("vm2")
			s.launcher(vm2, "source2", "")
			s.refused(vm2, "m2")
			s.launcher(s.vm, "target", "uid-m1").DeletionTimestamp = s.deleted()
			s.launcher(s.vm, "forged", "uid-m2")
			s.expect(charged, flight{"uid-m2", quota.Blocked, onePod, nil})
		},
		"one job label on two VMIs": func(s *scene) {
			vm2 := s.vmi("vm2")
			s.launcher(vm2, "source2", "")
			s.launcher(s.vm, "forged", "uid-none").DeletionTimestamp = s.deleted()
			s.launcher(vm2, "forged2", "uid-none").DeletionTimestamp = s.deleted()
			for range 20 { // orders of a map
				got := migration.InFlight(s.Snapshot)
				require.Len(s.t, got, 1)
				require.Equal(s.t, "vm1", got[0].VMI)
			}
		},
		"source of a migration long over": func(s *scene) {
			m, _ := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m)
			s.source.Status.Phase = corev1.PodSucceeded
			larger(s.launcher(s.vm, "forged", ""))
			s.expect()
			s.Pods[2].CreationTimestamp = s.source.CreationTimestamp // older than the target
			s.expect()
		},
		"name of a source long gone": func(s *scene) {
			m, _ := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m)
			s.forget(s.source)
			s.launcher(s.vm, "source", "")
			s.expect()
		},
		"second target of a migration that is over, without names": func(s *scene) {
			s.vmim(s.vm, "m1", kubevirtv1.MigrationSucceeded).Status.MigrationState = nil
			s.launcher(s.vm, "target", "uid-m1")
			s.launcher(s.vm, "forged", "uid-m1")
			s.source.Status.Phase = corev1.PodSucceeded
			s.expect()
		},
		"target of a migration long over": func(s *scene) {
			m1, target := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m1)
			set(s.launcher(s.vm, "forged", "uid-m1"), "memory=10Gi", "memory=20Gi")
			s.expect(charged) // source
			s.source.Status.Phase = corev1.PodSucceeded
			s.expect()
			s.refused(s.vm, "m2")
			s.expect(flight{"uid-m2", quota.Blocked, onePod, nil}) // not as large as the forged one
			s.Migrations = nil
			s.expect()
			target.CreationTimestamp = s.Pods[2].CreationTimestamp
			s.expect()
		},
		"no label": func(s *scene) {
			s.launcher(s.vm, "forged", "")
			s.expect()
		},
	})
}

// TestWhichPodTheVMIRunsIn: statuses tell, where there is more than a source and a
// target.
func TestWhichPodTheVMIRunsIn(t *testing.T) {
	// After a first migration, which nobody remembers, the VMI runs in second. There
	// is an older and smaller pod, so that a target would seem to have grown.
	begin := func(s *scene) (second *corev1.Pod) {
		m1, second := s.running(s.vm, s.source, "m1", "second")
		s.source.Name = "older"
		set(s.source, "memory=500Mi", "memory=1000Mi")
		s.forget(m1)
		s.vm.Status.MigrationState = nil
		hotPlug(s.vm, memoryChange)
		return second
	}
	running := flight{"uid-m2", quota.Charged, onePod, onePod}
	play(t, map[string]func(s *scene){
		"by the VMI": func(s *scene) {
			m2, _ := s.running(s.vm, begin(s), "m2", "third")
			s.expect(running)
			fail(s.vm, m2)
			s.forget(m2)
			s.expect(running)
		},
		"by the VMIM": func(s *scene) {
			begin(s)
			s.vmim(s.vm, "m0", kubevirtv1.MigrationFailed).Status.MigrationState.SourcePod = "older"
			m2 := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
			m2.Status.MigrationState.SourcePod = "second"
			s.launcher(s.vm, "third", m2.UID)
			s.expect(running)
		},
		"by the labels": func(s *scene) {
			m1 := s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
			m1.Status.MigrationState = nil
			target := s.launcher(s.vm, "target", m1.UID)
			target.CreationTimestamp = s.source.CreationTimestamp
			target.UID = "uid-a" // so it is the first
			cost := larger(target)
			s.expect(flight{"uid-m1", quota.Charged, cost, cost})
		},
		"by the age": func(s *scene) {
			s.vmim(s.vm, "m0", kubevirtv1.MigrationFailed)
			m1 := s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
			s.source.Labels[kubevirtv1.MigrationJobLabel] = "uid-m0"
			m1.Status.MigrationState = nil
			cost := larger(s.launcher(s.vm, "target", m1.UID))
			s.expect(flight{"uid-m1", quota.Charged, cost, cost})
		},
	})
}

// TestOneUIDTwice: no API server gives two objects one UID. The oldest counts.
func TestOneUIDTwice(t *testing.T) {
	s := newScene(t)
	vm2 := s.vmi("vm2")
	s.launcher(vm2, "source2", "")
	s.refused(s.vm, "m1")
	s.vmim(s.vm, "m2", kubevirtv1.MigrationPending).UID = "uid-m1"
	s.vmim(vm2, "m3", kubevirtv1.MigrationPending).UID = "uid-m1"
	for range 2 {
		s.expect(blocked)
		slices.Reverse(s.Migrations)
	}
	require.Equal(t, "vm1", migration.InFlight(s.Snapshot)[0].VMI)
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
	full := newScene(t)
	full.running(full.vm, full.source, "m1", "target")
	full.Migrations = append(full.Migrations, s.Migrations...)
	full.VMIs = append(full.VMIs, s.VMIs...)
	full.Pods = append(full.Pods, s.Pods...)
	require.True(t, slices.ContainsFunc(migration.InFlight(full.Snapshot), func(m quota.Migration) bool { return m.UID == "uid-m1" }))
}
