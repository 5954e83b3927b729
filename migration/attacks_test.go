package migration_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// These tests play a tenant with Kubernetes' and KubeVirt's role edit, who forges objects in
// his own namespace.

// forged is a pod with all labels of the target pod of a migration, which nothing controls.
func (s *scene) forged(vmi *kubevirtv1.VirtualMachineInstance, name string, m *kubevirtv1.VirtualMachineInstanceMigration) *corev1.Pod {
	pod := s.launcher(vmi, name, m.UID)
	pod.OwnerReferences = nil
	delete(vmi.Status.ActivePods, pod.UID)
	return pod
}

// TestPodsThatTheVMIDoesNotControl: KubeVirt counts the pods of a VMI by their controller,
// and so do we, whatever the labels say.
func TestPodsThatTheVMIDoesNotControl(t *testing.T) {
	yes := true
	owners := map[string][]metav1.OwnerReference{
		"no owner":        nil,
		"another VMI":     {{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "vm1", UID: "uid-vm2", Controller: &yes}},
		"another kind":    {{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachine", Name: "vm1", UID: "uid-vm1", Controller: &yes}},
		"another group":   {{APIVersion: "example.com/v1", Kind: "VirtualMachineInstance", Name: "vm1", UID: "uid-vm1", Controller: &yes}},
		"like that group": {{APIVersion: "kubevirt.io.example.com/v1", Kind: "VirtualMachineInstance", Name: "vm1", UID: "uid-vm1", Controller: &yes}},
		"not controlled":  {{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "vm1", UID: "uid-vm1"}},
	}
	for name, owner := range owners {
		t.Run(name, func(t *testing.T) {
			s, vmi, _ := newScene()
			m := s.refused(vmi, "m1")
			s.forged(vmi, "forged", m).OwnerReferences = owner
			s.expect(t, blocked)
			fail(withState(vmi, m), m)
			s.expect(t)
		})
	}
	t.Run("an older version of the API", func(t *testing.T) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		target.OwnerReferences[0].APIVersion = "kubevirt.io/v1alpha3"
		s.expect(t, charged)
	})
	t.Run("in the place of the source", func(t *testing.T) {
		s, vmi, source := newScene()
		m, _ := s.running(vmi, source, "m1", "target")
		succeed(vmi, m)
		s.forget(source)
		pod := s.launcher(vmi, "source", "")
		pod.OwnerReferences, pod.CreationTimestamp = nil, source.CreationTimestamp
		s.expect(t)
	})
	t.Run("attachment pods", func(t *testing.T) {
		s, vmi, _ := newScene()
		m := s.refused(vmi, "m1")
		forged := s.forged(vmi, "forged", m)
		s.attach(forged, "hp-forged")
		s.expect(t, blocked)
	})
}

// withState returns vmi, which has handed over to m.
func withState(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration) *kubevirtv1.VirtualMachineInstance {
	vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{MigrationUID: m.UID, SourcePod: "source"}
	return vmi
}

// TestPodsYoungerThanTheEnd: what is created after a migration has ended is not its target,
// whoever seems to control it, and whatever its name.
func TestPodsYoungerThanTheEnd(t *testing.T) {
	ends := map[string]func(*kubevirtv1.VirtualMachineInstance, *kubevirtv1.VirtualMachineInstanceMigration, metav1.Time){
		"by its phases": func(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration, end metav1.Time) {
			vmi.Status.MigrationState = nil
			m.Status.MigrationState = nil
			m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{
				{Phase: kubevirtv1.MigrationPending, PhaseTransitionTimestamp: metav1.NewTime(dawn)},
				{Phase: m.Status.Phase, PhaseTransitionTimestamp: end},
			}
		},
		"by its state": func(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration, end metav1.Time) {
			vmi.Status.MigrationState = nil
			m.Status.MigrationState.EndTimestamp = &end
		},
		"by the VMI": func(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration, end metav1.Time) {
			m.Status.MigrationState = nil
			vmi.Status.MigrationState.EndTimestamp = &end
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			s, vmi, source := newScene()
			m, target := s.running(vmi, source, "m1", "target")
			fail(vmi, m)
			end(vmi, m, s.meta("").CreationTimestamp)
			s.expect(t, charged)
			target.CreationTimestamp = metav1.NewTime(s.clock) // in the same second
			s.expect(t, charged)
			target.CreationTimestamp = metav1.NewTime(s.clock.Add(time.Second))
			s.expect(t)

			// Nor does it make the next one wait.
			set(target, "memory=1Mi", "memory=1Mi")
			s.refused(vmi, "m2")
			s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil})
		})
	}
	t.Run("of a VMIM that is gone", func(t *testing.T) {
		s, vmi, source := newScene()
		m, target := s.running(vmi, source, "m1", "target")
		fail(vmi, m)
		end := s.meta("").CreationTimestamp
		vmi.Status.MigrationState.EndTimestamp = &end
		s.forget(m)
		s.expect(t, charged)
		target.CreationTimestamp = metav1.NewTime(s.clock.Add(time.Second))
		s.expect(t)
	})
}

// TestPodsOfNoMigration: KubeVirt deletes the target pod before it lets a VMIM go, so one
// that is not being deleted is forged if nothing but its labels names its migration.
func TestPodsOfNoMigration(t *testing.T) {
	s, vmi, _ := newScene()
	pod := s.launcher(vmi, "forged", "uid-none")
	s.expect(t)
	vmi.Status.ActivePods = nil
	s.expect(t)
	pod.DeletionTimestamp = s.deleted()
	s.expect(t, flight{"uid-none", quota.Charged, onePod, onePod})
}

// TestForgedPodsDoNotMakeOthersWait: KubeVirt creates a target pod while the VMI controls a
// single pod.
func TestForgedPodsDoNotMakeOthersWait(t *testing.T) {
	s, vmi, _ := newScene()
	m1 := s.vmim(vmi, "m1", kubevirtv1.MigrationFailed)
	small := s.forged(vmi, "forged", m1)
	set(small, "memory=1Mi cpu=1m", "memory=1Mi cpu=1m")
	s.refused(vmi, "m2")
	s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil})
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
	t.Run("second claim", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		s.refused(vmi, "m1")
		forge(s, kubevirtv1.MigrationNameLabel, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
		s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		s.expect(t, flight{"uid-m1", quota.Charged, both, state})
	})
	t.Run("first claim", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		vmi.Status.VolumeStatus = nil
		s.refused(vmi, "m1")
		forge(s, persistentStateFor, "vm1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
	})
	t.Run("of another VM", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		s.refused(vmi, "m1")
		forge(s, kubevirtv1.MigrationNameLabel, "m1").OwnerReferences = []metav1.OwnerReference{
			*metav1.NewControllerRef(s.vmi("vm2"), kubevirtv1.VirtualMachineInstanceGroupVersionKind),
		}
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
	})
	t.Run("not forged, of a VMI that a VM controls", func(t *testing.T) {
		s, vmi, _ := newScene()
		vm := &kubevirtv1.VirtualMachine{ObjectMeta: s.meta("vm")}
		vmi.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(vm, kubevirtv1.VirtualMachineGroupVersionKind)}
		s.persistent(vmi)
		s.refused(vmi, "m1")
		s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce).OwnerReferences = vmi.OwnerReferences
		s.expect(t, flight{"uid-m1", quota.Charged, both, state})
	})
}

// TestAmountsOutOfRange: the API server takes amounts of any exponent, which nobody can
// calculate with, and which no ledger can record. They are left out, and nothing else is.
func TestAmountsOutOfRange(t *testing.T) {
	for _, text := range []string{"1e999", "1e999999999", "0e999999999", "1" + strings.Repeat("0", 31)} {
		huge := corev1.ResourceList{"q": resource.MustParse(text)}["q"]
		t.Run(text, func(t *testing.T) {
			s, vmi, source := newScene()
			m := s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
			target := s.launcher(vmi, "target", m.UID)
			for _, pod := range []*corev1.Pod{source, target} {
				pod.Spec.Containers[0].Resources.Requests["example.com/x"] = huge
				pod.Spec.InitContainers[0].Resources.Limits["example.com/y"] = huge
				pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"hugepages-2Mi": huge}}
				pod.Spec.Overhead = corev1.ResourceList{"example.com/z": huge}
			}
			s.expectOnly(t, charged)
			require.Equal(t, huge, source.Spec.Containers[0].Resources.Requests["example.com/x"], "the snapshot is only read")
		})
		t.Run(text+" before there is a target", func(t *testing.T) {
			s, vmi, source := newScene()
			s.refused(vmi, "m1")
			source.Spec.Containers[0].Resources.Requests["example.com/x"] = huge
			s.attach(source, "hp-source").Spec.Containers[0].Resources.Limits["cpu"] = huge
			vmi.Spec.Domain.Resources.Limits = corev1.ResourceList{"memory": huge}
			vmi.Spec.Domain.Memory.Guest = &huge
			s.persistent(vmi).Spec.Resources.Requests["storage"] = huge
			s.LimitRanges = []*corev1.LimitRange{limitRange("r", "", "")}
			s.LimitRanges[0].Spec.Limits[0].Default = corev1.ResourceList{"example.com/x": huge}
			hotPlug(vmi, memoryChange)
			without := attachment.DeepCopy()
			delete(without, "limits.cpu")
			storage := state.DeepCopy()
			delete(storage, "requests.storage")
			delete(storage, "ssd.storageclass.storage.k8s.io/requests.storage")
			s.expectOnly(t, flight{"uid-m1", quota.Blocked, plus(onePod, without, storage), nil})
		})
	}
}

func TestAmountsInRange(t *testing.T) {
	for _, text := range []string{"1n", "100E", "12345678901234567890", "8Ei", "1e29", "0", "0.5"} {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		source.Spec.Containers[0].Resources.Requests["example.com/x"] = resource.MustParse(text)
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "requests.example.com/x="+text), nil})
	}
}

func condition(m *kubevirtv1.VirtualMachineInstanceMigration, c kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus) {
	m.Status.Conditions = append(m.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: c, Status: status})
}

// TestUtilityVolumes: while they are there KubeVirt returns before it creates a target pod,
// and before it takes back that quota has refused one.
func TestUtilityVolumes(t *testing.T) {
	s, vmi, source := newScene()
	m := s.refused(vmi, "m1")
	condition(m, kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes, corev1.ConditionTrue)
	s.expect(t)
	s.refused(vmi, "m2")
	s.expect(t, flight{"uid-m2", quota.Blocked, onePod, nil}) // it makes no other one wait
	s.Migrations = s.Migrations[:1]

	t.Run("they come when a claim is there", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		condition(s.refused(vmi, "m1"), kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes, corev1.ConditionTrue)
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, state), state})
	})
	m.Status.Conditions[1].Status = corev1.ConditionFalse
	s.expect(t, blocked)
	m.Status.Conditions = m.Status.Conditions[:1]
	s.expect(t, blocked)

	// They say nothing of a pod that is there.
	condition(m, kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes, corev1.ConditionTrue)
	m.Status.Phase = kubevirtv1.MigrationScheduling
	s.expect(t, charged)
	s.forget(m)
	m, _ = s.running(vmi, source, "m1", "target")
	condition(m, kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes, corev1.ConditionTrue)
	s.expect(t, charged)
}

// TestBackup: while one is going on KubeVirt creates target pods, but its status says nothing
// of a refusal.
func TestBackup(t *testing.T) {
	s, vmi, _ := newScene()
	m := s.vmim(vmi, "m1", kubevirtv1.MigrationPending)
	event := refusal("limits.cpu=1015m", "vm1", m.CreationTimestamp)
	s.Events = []*corev1.Event{event}
	s.expect(t, queued) // without a backup the status would say so
	condition(m, kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup, corev1.ConditionTrue)
	s.expect(t, blocked)

	event.Message = strings.ReplaceAll(event.Message, "exceeded quota", "no")
	s.expect(t, queued)
	s.Events[0] = refusal("limits.cpu=1015m", "vm1", metav1.NewTime(m.CreationTimestamp.Add(-time.Minute)))
	s.expect(t, queued)
	s.Events = nil
	s.expect(t, queued)
}

// TestForgedOwner: whoever forges the controller, too, deceives KubeVirt, which takes the pod for
// the target. It claims no more than four times what a target pod would, and nothing that the
// source has not.
func TestForgedOwner(t *testing.T) {
	s, vmi, _ := newScene()
	m := s.refused(vmi, "m1")
	pod := s.launcher(vmi, "forged", m.UID)
	set(pod, "cpu=1395m memory=10Ti", "cpu=4 memory=10Ti nvidia.com/gpu=8")
	compute(pod).Requests["nvidia.com/gpu"] = resource.MustParse("8")
	memory := plus(onePod, onePod, onePod, onePod)
	most := with(onePod, "requests.cpu=420m cpu=420m limits.cpu=4015m")
	for _, name := range []corev1.ResourceName{"memory", "requests.memory", "limits.memory"} {
		most[name] = memory[name]
	}
	most["cpu"], most["requests.cpu"] = memory["cpu"], memory["cpu"]
	s.expect(t, flight{"uid-m1", quota.Charged, most, most})
}

// TestForgedNames: a claim that is named by a status and is gone can be made anew by anybody.
func TestForgedNames(t *testing.T) {
	s, vmi, source := newScene()
	s.persistent(vmi)
	m, _ := s.running(vmi, source, "m1", "target")
	vmi.Status.MigrationState.SourcePersistentStatePVCName = s.PVCs[0].Name
	vmi.Status.MigrationState.TargetPersistentStatePVCName = "forged"
	fail(vmi, m)
	pvc := s.claim("forged", "", "", corev1.ReadWriteOnce)
	s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, state), plus(onePod, state)})
	pvc.OwnerReferences = nil
	s.expect(t, charged)

	vmi.Status.MigrationState.Failed = false
	succeed(vmi, m)
	pvc.OwnerReferences = s.PVCs[0].OwnerReferences
	s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, state), plus(onePod, state)})
	s.PVCs[0].OwnerReferences = nil
	s.expect(t, charged)
}

// KubeVirt takes the memory overhead of a VMI from an annotation of its pod, which whoever may
// write pods can change, and change again.
func TestForgedOverhead(t *testing.T) {
	s, vmi, source := newScene()
	m := s.refused(vmi, "m1")
	forged := resource.MustParse("100G")
	vmi.Status.Memory.MemoryOverhead = &forged
	source.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "0"
	four := with(onePod, "memory=5462429376 requests.memory=5462429376 limits.memory=10914858752") // the sidecar's are as before
	s.expect(t, flight{m.UID, quota.Blocked, four, nil})
}
