package migration_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// leavesClaim is a migration that is over, and of which the losing claim is being deleted, because
// the losing pod is there, which has ended.
func leavesClaim(s *scene, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) (m *kubevirtv1.VirtualMachineInstanceMigration, left *corev1.PersistentVolumeClaim) {
	source := s.persistent(s.vm)
	m, pod := s.running(s.vm, s.source, "m1", "target")
	target := s.second("persistent-state-for-vm1-fghij")
	m.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
		SourcePod: s.source.Name, TargetPod: pod.Name,
		SourcePersistentStatePVCName: source.Name, TargetPersistentStatePVCName: target.Name,
	}
	m.Status.Phase = phase
	s.clock = s.clock.Add(time.Minute)
	m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{{
		Phase: phase, PhaseTransitionTimestamp: metav1.NewTime(s.clock),
	}}
	s.vm.Status.MigrationState = nil
	pod, left = s.source, source
	if phase == kubevirtv1.MigrationSucceeded {
		s.vm.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = target.Name
	} else {
		pod, left = s.Pods[len(s.Pods)-1], target
	}
	pod.Status.Phase = corev1.PodSucceeded
	left.DeletionTimestamp = s.deleted()
	return m, left
}

func TestClaimThatIsLeft(t *testing.T) {
	left := flight{"uid-m1", quota.Charged, state, state}
	play(t, map[string]func(s *scene){
		"by a success": func(s *scene) {
			leavesClaim(s, kubevirtv1.MigrationSucceeded)
			s.expect(left)
			require.True(s.t, migration.InFlight(s.Snapshot)[0].OnlyClaims())
			require.True(s.t, migration.InFlight(s.Snapshot)[0].Over)
		},
		"by a failure": func(s *scene) {
			leavesClaim(s, kubevirtv1.MigrationFailed)
			s.expect(left)
		},
		"and keeps no other migration waiting": func(s *scene) {
			leavesClaim(s, kubevirtv1.MigrationFailed)
			s.refused(s.vm, "m2")
			s.expect(left, flight{"uid-m2", quota.Blocked, plus(onePod, state), nil})
		},
		"and is gone": func(s *scene) {
			_, claim := leavesClaim(s, kubevirtv1.MigrationSucceeded)
			s.forget(claim)
			s.expect()
		},
		"and is not being deleted": func(s *scene) {
			_, claim := leavesClaim(s, kubevirtv1.MigrationSucceeded)
			claim.DeletionTimestamp = nil
			s.expect()
		},
		"but the VMI uses it": func(s *scene) {
			_, claim := leavesClaim(s, kubevirtv1.MigrationSucceeded)
			s.vm.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = claim.Name
			s.expect()
		},
		"by name only: it is younger than the end": func(s *scene) {
			m, claim := leavesClaim(s, kubevirtv1.MigrationSucceeded)
			claim.CreationTimestamp = metav1.NewTime(m.Status.PhaseTransitionTimestamps[0].PhaseTransitionTimestamp.Add(time.Second))
			s.expect()
		},
		"by name only: it is not KubeVirt's": func(s *scene) {
			_, claim := leavesClaim(s, kubevirtv1.MigrationSucceeded)
			claim.OwnerReferences = nil
			s.expect()
		},
	})
}
