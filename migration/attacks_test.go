package migration_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// These tests play a tenant with Kubernetes' and KubeVirt's role edit, who forges objects in
// his own namespace.

// forged is a pod with all labels of the target pod of a migration, which nothing controls.
func (s *scene) forged(vmi *kubevirtv1.VirtualMachineInstance, name string, m *kubevirtv1.VirtualMachineInstanceMigration) *corev1.Pod {
	pod := s.launcher(vmi, name, m.UID)
	pod.OwnerReferences = nil
	return pod
}

// TestPodsThatTheVMIDoesNotControl: KubeVirt counts the pods of a VMI by their controller,
// and so do we, whatever the labels say.
func TestPodsThatTheVMIDoesNotControl(t *testing.T) {
	owner := func(api, kind string, uid types.UID, controller bool) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: api, Kind: kind, Name: "vm1", UID: uid, Controller: &controller}}
	}
	for name, owners := range map[string][]metav1.OwnerReference{
		"no owner":        nil,
		"another VMI":     owner("kubevirt.io/v1", "VirtualMachineInstance", "uid-vm2", true),
		"another kind":    owner("kubevirt.io/v1", "VirtualMachine", "uid-vm1", true),
		"another group":   owner("example.com/v1", "VirtualMachineInstance", "uid-vm1", true),
		"like that group": owner("kubevirt.io.example.com/v1", "VirtualMachineInstance", "uid-vm1", true),
		"not controlled":  owner("kubevirt.io/v1", "VirtualMachineInstance", "uid-vm1", false),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.refused(s.vm, "m1")
			s.forged(s.vm, "forged", m).OwnerReferences = owners
			s.expect(blocked)
			s.vm.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: m.UID, SourcePod: "source"}
			fail(s.vm, m)
			s.expect()
		})
	}
	play(t, map[string]func(s *scene){
		"an older version of the API": func(s *scene) {
			_, target := s.running(s.vm, s.source, "m1", "target")
			target.OwnerReferences[0].APIVersion = "kubevirt.io/v1alpha3"
			s.expect(charged)
		},
		"in the place of the source": func(s *scene) {
			m, _ := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m)
			s.forget(s.source)
			pod := s.launcher(s.vm, "source", "")
			pod.OwnerReferences, pod.CreationTimestamp = nil, s.source.CreationTimestamp
			s.expect()
		},
		"attachment pods": func(s *scene) {
			m := s.refused(s.vm, "m1")
			forged := s.forged(s.vm, "forged", m)
			s.attach(forged, "hp-forged")
			s.expect(blocked)
		},
	})
}

// TestPodsYoungerThanTheEnd: what is created after a migration has ended is not its target,
// whoever seems to control it, and whatever its name.
func TestPodsYoungerThanTheEnd(t *testing.T) {
	type vmim = kubevirtv1.VirtualMachineInstanceMigration
	for name, end := range map[string]func(s *scene, m *vmim, at metav1.Time){
		"by its phases": func(s *scene, m *vmim, at metav1.Time) {
			s.vm.Status.MigrationState, m.Status.MigrationState = nil, nil
			m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{
				{Phase: kubevirtv1.MigrationPending, PhaseTransitionTimestamp: metav1.NewTime(dawn)},
				{Phase: m.Status.Phase, PhaseTransitionTimestamp: at},
			}
		},
		"by its state": func(s *scene, m *vmim, at metav1.Time) {
			s.vm.Status.MigrationState, m.Status.MigrationState.EndTimestamp = nil, &at
		},
		"by the VMI": func(s *scene, m *vmim, at metav1.Time) {
			m.Status.MigrationState, s.vm.Status.MigrationState.EndTimestamp = nil, &at
		},
		"by the VMI, and the VMIM is gone": func(s *scene, m *vmim, at metav1.Time) {
			s.vm.Status.MigrationState.EndTimestamp = &at
			s.forget(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m, target := s.running(s.vm, s.source, "m1", "target")
			fail(s.vm, m)
			end(s, m, s.meta("").CreationTimestamp)
			s.expect(charged)
			target.CreationTimestamp = metav1.NewTime(s.clock) // in the same second
			s.expect(charged)
			target.CreationTimestamp = metav1.NewTime(s.clock.Add(time.Second))
			s.expect()

			// Nor does it make the next one wait.
			set(target, "memory=1Mi", "memory=1Mi")
			s.refused(s.vm, "m2")
			s.expect(flight{"uid-m2", quota.Blocked, onePod, nil})
		})
	}
}

// TestPodsOfNoMigration: KubeVirt deletes the target pod before it lets a VMIM go, so one
// that is not being deleted is forged if nothing but its labels names its migration.
func TestPodsOfNoMigration(t *testing.T) {
	s := newScene(t)
	pod := s.launcher(s.vm, "forged", "uid-none")
	s.expect()
	pod.DeletionTimestamp = s.deleted()
	s.expect(flight{"uid-none", quota.Charged, onePod, onePod})
}

// TestForgedPodsDoNotMakeOthersWait: KubeVirt creates a target pod while the VMI controls a
// single pod.
func TestForgedPodsDoNotMakeOthersWait(t *testing.T) {
	s := newScene(t)
	m1 := s.vmim(s.vm, "m1", kubevirtv1.MigrationFailed)
	small := s.forged(s.vm, "forged", m1)
	set(small, "memory=1Mi cpu=1m", "memory=1Mi cpu=1m")
	s.refused(s.vm, "m2")
	s.expect(flight{"uid-m2", quota.Blocked, onePod, nil})
}

// TestForgedClaims: KubeVirt gives its claims the owners of the VMI, or the VMI as the owner.
func TestForgedClaims(t *testing.T) {
	both := plus(onePod, state)
	forge := func(s *scene, label, value string) *corev1.PersistentVolumeClaim {
		pvc := s.claim("forged", label, value, corev1.ReadWriteOnce)
		pvc.OwnerReferences = nil
		pvc.Spec.Resources.Requests = list("storage=10Ti")
		pvc.CreationTimestamp = metav1.NewTime(dawn) // the oldest
		return pvc
	}
	play(t, map[string]func(s *scene){
		"second claim": func(s *scene) {
			s.persistent(s.vm)
			s.refused(s.vm, "m1")
			forge(s, kubevirtv1.MigrationNameLabel, "m1")
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
			s.second("persistent-state-for-vm1-fghij")
			s.expect(flight{"uid-m1", quota.Charged, both, state})
		},
		"first claim": func(s *scene) {
			s.persistent(s.vm)
			s.vm.Status.VolumeStatus = nil
			s.refused(s.vm, "m1")
			forge(s, persistentStateFor, "vm1")
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
		},
		"of another VM": func(s *scene) {
			s.persistent(s.vm)
			s.refused(s.vm, "m1")
			forge(s, kubevirtv1.MigrationNameLabel, "m1").OwnerReferences = []metav1.OwnerReference{
				*metav1.NewControllerRef(s.vmi("vm2"), kubevirtv1.VirtualMachineInstanceGroupVersionKind),
			}
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
		},
		"not forged, of a VMI that a VM controls": func(s *scene) {
			vm := &kubevirtv1.VirtualMachine{ObjectMeta: s.meta("vm")}
			s.vm.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(vm, kubevirtv1.VirtualMachineGroupVersionKind)}
			s.persistent(s.vm)
			s.refused(s.vm, "m1")
			s.second("persistent-state-for-vm1-fghij").OwnerReferences = s.vm.OwnerReferences
			s.expect(flight{"uid-m1", quota.Charged, both, state})
		},
	})
}

// TestAmountsOutOfRange: the API server takes amounts of any exponent, which nobody can
// calculate with, and which no ledger can record. They are left out, and nothing else is.
func TestAmountsOutOfRange(t *testing.T) {
	for _, text := range []string{"1e999", "1e999999999", "0e999999999", "1" + strings.Repeat("0", 31)} {
		huge := corev1.ResourceList{"q": resource.MustParse(text)}["q"]
		t.Run(text, func(t *testing.T) {
			s := newScene(t)
			m := s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
			target := s.launcher(s.vm, "target", m.UID)
			for _, pod := range []*corev1.Pod{s.source, target} {
				pod.Spec.Containers[0].Resources.Requests["example.com/x"] = huge
				pod.Spec.InitContainers[0].Resources.Limits["example.com/y"] = huge
				pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"hugepages-2Mi": huge}}
				pod.Spec.Overhead = corev1.ResourceList{"example.com/z": huge}
			}
			s.expectOnly(charged)
			require.Equal(t, huge, s.source.Spec.Containers[0].Resources.Requests["example.com/x"], "the snapshot is only read")
		})
		t.Run(text+" before there is a target", func(t *testing.T) {
			s := newScene(t)
			s.refused(s.vm, "m1")
			s.source.Spec.Containers[0].Resources.Requests["example.com/x"] = huge
			s.attach(s.source, "hp-source").Spec.Containers[0].Resources.Limits["cpu"] = huge
			s.vm.Spec.Domain.Resources.Limits = corev1.ResourceList{"memory": huge}
			s.vm.Spec.Domain.Memory.Guest = &huge
			s.persistent(s.vm).Spec.Resources.Requests["storage"] = huge
			s.LimitRanges = []*corev1.LimitRange{limitRange("r", "", "")}
			s.LimitRanges[0].Spec.Limits[0].Default = corev1.ResourceList{"example.com/x": huge}
			hotPlug(s.vm, memoryChange)
			without := attachment.DeepCopy()
			delete(without, "limits.cpu")
			storage := state.DeepCopy()
			delete(storage, "requests.storage")
			delete(storage, "ssd.storageclass.storage.k8s.io/requests.storage")
			s.expectOnly(flight{"uid-m1", quota.Blocked, plus(onePod, without, storage), nil})
		})
	}
}

func TestAmountsInRange(t *testing.T) {
	for _, text := range []string{"1n", "100E", "12345678901234567890", "8Ei", "1e29", "0", "0.5"} {
		s := newScene(t)
		s.refused(s.vm, "m1")
		s.source.Spec.Containers[0].Resources.Requests["example.com/x"] = resource.MustParse(text)
		s.expect(flight{"uid-m1", quota.Blocked, with(onePod, "requests.example.com/x="+text), nil})
	}
}

// TestUtilityVolumes: while they are there KubeVirt returns before it creates a target pod,
// and before it takes back that quota has refused one.
func TestUtilityVolumes(t *testing.T) {
	s := newScene(t)
	m := s.refused(s.vm, "m1")
	condition(m, utilityVolumes, corev1.ConditionTrue)
	s.expect()
	s.refused(s.vm, "m2")
	s.expect(flight{"uid-m2", quota.Blocked, onePod, nil}) // it makes no other one wait
	s.Migrations = s.Migrations[:1]

	t.Run("they come when a claim is there", func(t *testing.T) {
		s := newScene(t)
		s.persistent(s.vm)
		s.second("persistent-state-for-vm1-fghij")
		condition(s.refused(s.vm, "m1"), utilityVolumes, corev1.ConditionTrue)
		s.expect(flight{"uid-m1", quota.Charged, plus(onePod, state), state})
	})
	m.Status.Conditions[1].Status = corev1.ConditionFalse
	s.expect(blocked)
	m.Status.Conditions = m.Status.Conditions[:1]
	s.expect(blocked)

	// They say nothing of a pod that is there.
	condition(m, utilityVolumes, corev1.ConditionTrue)
	m.Status.Phase = kubevirtv1.MigrationScheduling
	s.expect(charged)
	s.forget(m)
	m, _ = s.running(s.vm, s.source, "m1", "target")
	condition(m, utilityVolumes, corev1.ConditionTrue)
	s.expect(charged)
}

// TestBackup: while one is going on KubeVirt creates target pods, but its status says nothing
// of a refusal.
func TestBackup(t *testing.T) {
	s := newScene(t)
	m := s.vmim(s.vm, "m1", kubevirtv1.MigrationPending)
	event := refusal("limits.cpu=1015m", "vm1", m.CreationTimestamp)
	s.Events = []*corev1.Event{event}
	s.expect(queued) // without a backup the status would say so
	condition(m, backup, corev1.ConditionTrue)
	s.expect(blocked)

	event.Message = strings.ReplaceAll(event.Message, "exceeded quota", "no")
	s.expect(queued)
	s.Events[0] = refusal("limits.cpu=1015m", "vm1", metav1.NewTime(m.CreationTimestamp.Add(-time.Minute)))
	s.expect(queued)
	s.Events = nil
	s.expect(queued)
}

// TestForgedOwner: whoever forges the controller, too, deceives KubeVirt, which takes the pod for
// the target. It claims no more than four times what a target pod would, and nothing that the
// source has not.
func TestForgedOwner(t *testing.T) {
	s := newScene(t)
	m := s.refused(s.vm, "m1")
	pod := s.launcher(s.vm, "forged", m.UID)
	set(pod, "cpu=1395m memory=10Ti", "cpu=4 memory=10Ti nvidia.com/gpu=8")
	compute(pod).Requests["nvidia.com/gpu"] = resource.MustParse("8")
	memory := plus(onePod, onePod, onePod, onePod)
	most := with(onePod, "requests.cpu=420m cpu=420m limits.cpu=4015m")
	for _, name := range []corev1.ResourceName{"memory", "requests.memory", "limits.memory"} {
		most[name] = memory[name]
	}
	most["cpu"], most["requests.cpu"] = memory["cpu"], memory["cpu"]
	s.expect(flight{"uid-m1", quota.Charged, most, most})
}

// TestForgedNames: a claim that is named by a status and is gone can be made anew by anybody.
func TestForgedNames(t *testing.T) {
	s := newScene(t)
	s.persistent(s.vm)
	m, _ := s.running(s.vm, s.source, "m1", "target")
	s.vm.Status.MigrationState.SourcePersistentStatePVCName = s.PVCs[0].Name
	s.vm.Status.MigrationState.TargetPersistentStatePVCName = "forged"
	fail(s.vm, m)
	pvc := s.claim("forged", "", "", corev1.ReadWriteOnce)
	s.expect(flight{"uid-m1", quota.Charged, plus(onePod, state), plus(onePod, state)})
	pvc.OwnerReferences = nil
	s.expect(charged)

	s.vm.Status.MigrationState.Failed = false
	succeed(s.vm, m)
	pvc.OwnerReferences = s.PVCs[0].OwnerReferences
	s.expect(flight{"uid-m1", quota.Charged, plus(onePod, state), plus(onePod, state)})
	s.PVCs[0].OwnerReferences = nil
	s.expect(charged)
}

// KubeVirt takes the memory overhead of a VMI from an annotation of its pod, which whoever may
// write pods can change, and change again.
func TestForgedOverhead(t *testing.T) {
	s := newScene(t)
	m := s.refused(s.vm, "m1")
	forged := resource.MustParse("100G")
	s.vm.Status.Memory.MemoryOverhead = &forged
	s.source.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "0"
	four := with(onePod, "memory=5462429376 requests.memory=5462429376 limits.memory=10914858752") // the sidecar's are as before
	s.expect(flight{m.UID, quota.Blocked, four, nil})
}
