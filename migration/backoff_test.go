package migration_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// KubeVirt creates no target pod for 20 s after a migration of a drain has failed, so no room is
// made before; and then it is made although nothing has changed.
func TestBackOff(t *testing.T) {
	s, vmi, _ := newScene()
	other := s.vmi("vm2")
	s.launcher(other, "source2", "")
	failed := s.vmim(vmi, "m1", kubevirtv1.MigrationFailed)
	next := s.vmim(vmi, "m2", kubevirtv1.MigrationPending)
	for _, m := range []*kubevirtv1.VirtualMachineInstanceMigration{failed, next} {
		metav1.SetMetaDataAnnotation(&m.ObjectMeta, kubevirtv1.EvacuationMigrationAnnotation, "node01")
	}
	s.refused(other, "m3")
	failed.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{{
		Phase: kubevirtv1.MigrationFailed, PhaseTransitionTimestamp: metav1.NewTime(s.clock.Add(-10 * time.Second)),
	}}
	migrations, _ := indexed(s.Migrations...)
	vmis, _ := indexed(s.VMIs...)
	pods, _ := indexed(s.Pods...)
	quotas, _ := indexed[corev1.ResourceQuota]()
	var found []quota.Migration
	c, err := migration.NewController(migration.Clients{Core: fake.NewClientset()}, migration.Options{
		Caches: &migration.Caches{Migrations: migrations, VMIs: vmis, Pods: pods}, Quotas: quotas,
		Patch:    func(context.Context, string, string, []byte) error { return nil },
		Recorder: &record.FakeRecorder{}, Now: func() time.Time { return s.clock },
		Reconciled: func(_ context.Context, r migration.Report) { found = r.InFlight },
	})
	require.NoError(t, err)
	for left := 10 * time.Second; left > 0; {
		again, err := c.Reconcile(t.Context(), "tenant")
		require.NoError(t, err)
		require.Equal(t, []types.UID{"uid-m3"}, uids(found), "%v before the end", left)
		require.Positive(t, again)
		require.LessOrEqual(t, again, left)
		s.clock, left = s.clock.Add(again), left-again
	}
	_, err = c.Reconcile(t.Context(), "tenant")
	require.NoError(t, err)
	require.Equal(t, []types.UID{"uid-m2", "uid-m3"}, uids(found))

	s.Now = s.clock.Add(-time.Second)
	require.Equal(t, []types.UID{"uid-m3"}, uids(migration.InFlight(s.Snapshot)))
	refuse(next, corev1.ConditionTrue)
	require.Equal(t, []types.UID{"uid-m2", "uid-m3"}, uids(migration.InFlight(s.Snapshot)), "KubeVirt has tried")
}
