package migration_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// foreseen returns the migrations by VMI, each VMI once.
func foreseen(t *testing.T, s *scene, overhead string) map[string]quota.Migration {
	t.Helper()
	byVMI := map[string]quota.Migration{}
	before := len(s.Migrations)
	for _, m := range migration.IfAllMigrated(s.Snapshot, resource.MustParse(overhead)) {
		require.NotContains(t, byVMI, m.VMI)
		byVMI[m.VMI] = m
	}
	require.Len(t, s.Migrations, before, "the snapshot is read only")
	return byVMI
}

// What is foreseen of a VM is what is in flight once it has to migrate.
func TestIfAllMigrated(t *testing.T) {
	s := newScene(t)
	vm2 := s.vmi("vm2")
	s.launcher(vm2, "source2", "")
	all := foreseen(t, s, "0")
	require.Len(t, all, 2)
	require.Equal(t, quota.Queued, all["vm2"].State)
	require.Equal(t, vm2.UID, all["vm2"].UID)
	require.Equal(t, text(onePod), text(all["vm1"].Surge))

	m1, _ := s.running(s.vm, s.source, "m1", "target")
	s.vmim(vm2, "old", kubevirtv1.MigrationSucceeded)
	all = foreseen(t, s, "0")
	require.Equal(t, m1.UID, all["vm1"].UID, "it migrates already")
	require.Equal(t, quota.Charged, all["vm1"].State)
	require.Equal(t, quota.Queued, all["vm2"].State, "its migration is over")
}

func TestWhatCannotMigrateIsNotForeseen(t *testing.T) {
	s := newScene(t)
	s.vm.Status.Conditions[1].Status = corev1.ConditionFalse
	require.Empty(t, foreseen(t, s, "0"))
	s.vm.Status.Conditions = nil
	require.Len(t, foreseen(t, s, "0"), 1, "KubeVirt has not said yet")
	s.vm.Status.Phase = kubevirtv1.Scheduling
	require.Empty(t, foreseen(t, s, "0"))
	s.VMIs[0] = nil
	require.Empty(t, foreseen(t, s, "0"))
}

func TestUpgradeMakesTargetsLarger(t *testing.T) {
	s := newScene(t)
	s.vm.Spec.Domain.Resources.Limits = list("memory=1Gi")
	set(s.source, "", "memory=1294Mi")
	require.Equal(t, text(ofMemory("1314Mi", "1314Mi")), text(foreseen(t, s, "20Mi")["vm1"].Surge))

	reported := resource.MustParse("280Mi") // 10Mi more than the source was rendered with
	s.vm.Status.Memory.MemoryOverhead = &reported
	require.Equal(t, text(ofMemory("1324Mi", "1324Mi")), text(foreseen(t, s, "20Mi")["vm1"].Surge))

	s.vm.Spec.Domain.Resources.OvercommitGuestOverhead = true
	s.vm.Status.Memory.MemoryOverhead = nil
	require.Equal(t, text(ofMemory("1294Mi", "1314Mi")), text(foreseen(t, s, "20Mi")["vm1"].Surge))

	// A target pod that exists is as large as it is.
	_, target := s.running(s.vm, s.source, "m1", "target")
	set(target, "", "memory=1294Mi")
	require.Equal(t, text(ofMemory("1294Mi", "1294Mi")), text(foreseen(t, s, "20Mi")["vm1"].Surge))
}
