package migration_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// What a reconcile finds in flight is never what an earlier one has found.
func TestReconcileSeesEveryChange(t *testing.T) {
	scene := newScene(t)
	vmim, target := scene.running(scene.vm, scene.source, "m", "target")
	migrations, vmims := indexed(vmim)
	vmis, _ := indexed(scene.vm)
	template(scene.source)
	template(target)
	claim := scene.nics(scene.source, "source-net", 2)
	claims, storedClaims := indexed(claim)
	pods, stored := indexed(scene.source, target)
	quotas, _ := indexed[corev1.ResourceQuota]()
	now := scene.clock
	var found []quota.Migration
	c := embedded(t, fake.NewClientset(), migration.Options{
		Caches: &migration.Caches{Migrations: migrations, VMIs: vmis, Pods: pods, ResourceClaims: claims}, Quotas: quotas,
		Now:        func() time.Time { return now },
		Reconciled: func(_ context.Context, r migration.Report) { found = r.InFlight },
	})
	reconcile := func() []quota.Migration {
		_, err := c.Reconcile(t.Context(), "tenant")
		require.NoError(t, err)
		return found
	}

	first := reconcile()
	require.Len(t, first, 1)
	require.Equal(t, first, reconcile())

	larger := claim.DeepCopy()
	larger.Spec.Devices.Requests[0].Exactly.Count = 3
	require.NoError(t, storedClaims.Update(larger))
	require.NotEqual(t, first[0].Surge, reconcile()[0].Surge, "one claim is another")
	first = reconcile()

	small := target.DeepCopy()
	compute(small).Limits[corev1.ResourceMemory] = *small.Spec.Containers[0].Resources.Requests.Memory()
	require.NoError(t, stored.Update(small))
	require.NotEqual(t, first[0].Surge, reconcile()[0].Surge, "one object is another")

	deleted, grace := metav1.NewTime(now), int64(30)
	ending := small.DeepCopy()
	ending.DeletionTimestamp, ending.DeletionGracePeriodSeconds = &deleted, &grace
	require.NoError(t, stored.Update(ending))
	require.Equal(t, quota.Charged, reconcile()[0].State)
	now = now.Add(31 * time.Second)
	require.Empty(t, reconcile(), "the grace period is over, and nothing else has changed")

	require.NoError(t, stored.Update(small))
	require.Len(t, reconcile(), 1)
	require.NoError(t, stored.Delete(small))
	require.NoError(t, vmims.Delete(vmim))
	require.Empty(t, reconcile(), "two objects are gone")
}
