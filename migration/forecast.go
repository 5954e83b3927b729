package migration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// IfAllMigrated returns what [InFlight] would return if each running VMI of s had to migrate,
// as for a drain or an upgrade: the migrations in flight, and for each other VMI a Queued one
// with the UID of the VMI. A VMI that KubeVirt says cannot live-migrate (condition
// LiveMigratable) has none.
//
// Overhead is what an upgrade of KubeVirt adds to the memory of each target pod that does not
// exist yet; zero if nothing.
func IfAllMigrated(s Snapshot, overhead resource.Quantity) []quota.Migration {
	s.upgrade = overhead.DeepCopy()
	migrating := map[string]bool{}
	for _, m := range InFlight(s) {
		migrating[m.VMI] = true
	}
	s.Migrations = slices.Clone(s.Migrations)
	for _, vmi := range s.VMIs {
		if vmi == nil || !vmi.IsRunning() || migrating[vmi.Name] || !migratable(vmi) {
			continue
		}
		s.Migrations = append(s.Migrations, &kubevirtv1.VirtualMachineInstanceMigration{
			ObjectMeta: metav1.ObjectMeta{Namespace: vmi.Namespace, Name: vmi.Name, UID: vmi.UID},
			Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi.Name},
		})
	}
	return InFlight(s)
}

// migratable reports whether KubeVirt lets vmi migrate, or does not say.
func migratable(vmi *kubevirtv1.VirtualMachineInstance) bool {
	return !slices.ContainsFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == kubevirtv1.VirtualMachineInstanceIsMigratable && c.Status == corev1.ConditionFalse
	})
}
