package migration_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	clientfake "k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A source pod has ended and is no longer counted, and the cache of pods still shows it. That is
// in each report, and is logged once when it has lasted for two seconds.
func TestReconcileTellsThatTheCacheOfPodsIsLate(t *testing.T) {
	s := newScene(t)
	vmim, target := s.running(s.vm, s.source, "m", "target")
	succeed(s.vm, vmim)
	both := plus(quota.Footprint(s.source), quota.Footprint(target))
	rq := &corev1.ResourceQuota{ObjectMeta: s.meta("q"), Spec: corev1.ResourceQuotaSpec{Hard: list("limits.memory=100Gi")}}
	rq.Status.Hard = rq.Spec.Hard
	vmims, _ := indexed(vmim)
	vmis, _ := indexed(s.vm)
	pods, _ := indexed(s.source, target)
	var report migration.Report
	now := s.clock
	c := embedded(t, clientfake.NewClientset(), migration.Options{
		Caches: &migration.Caches{Migrations: vmims, VMIs: vmis, Pods: pods}, RecordOnly: true,
		Quotas: func(context.Context, string) ([]*corev1.ResourceQuota, error) {
			return []*corev1.ResourceQuota{rq}, nil
		},
		Now:        func() time.Time { return now },
		Reconciled: func(_ context.Context, r migration.Report) { report = r },
	})
	ctx, log := buffered(t)
	told := func() int { return strings.Count(log(), "The cache of pods shows more than the quota counts") }
	reconcile := func(used corev1.ResourceList, after time.Duration) (requeueAfter time.Duration) {
		now = now.Add(after)
		rq.Status.Used = corev1.ResourceList{corev1.ResourceLimitsMemory: used[corev1.ResourceLimitsMemory]}
		requeueAfter, err := c.Reconcile(ctx, "tenant")
		require.NoError(t, err)
		return requeueAfter
	}

	require.Zero(t, reconcile(both, 0))
	require.Empty(t, report.Behind)
	require.True(t, report.InFlight[0].Over)
	for told0 := range 2 { // and once more when it happens again
		require.Equal(t, 100*time.Millisecond, reconcile(quota.Footprint(target), time.Minute))
		require.Len(t, report.InFlight, 1, "the two watches are never quite at the same time")
		require.Equal(t, 1900*time.Millisecond, reconcile(quota.Footprint(target), 100*time.Millisecond))
		surge := quota.Footprint(s.source)[corev1.ResourceLimitsMemory]
		require.True(t, quota.Equal(corev1.ResourceList{corev1.ResourceLimitsMemory: surge}, report.Behind["q"]), "%v", report.Behind)
		require.Empty(t, report.InFlight, "its pod is not counted")
		require.Equal(t, told0, told())
		require.Equal(t, 900*time.Millisecond, reconcile(quota.Footprint(target), time.Second))
		require.Equal(t, told0, told())
		for range 3 {
			require.Zero(t, reconcile(quota.Footprint(target), time.Second))
			require.Equal(t, told0+1, told())
		}
		require.Zero(t, reconcile(both, time.Second))
		require.Empty(t, report.Behind)
		require.Len(t, report.InFlight, 1)
	}
}

// With a cache of pods that is three seconds late, the room of a source pod that has ended is
// open for a moment only.
func TestALateCacheOfPodsMakesNoRoom(t *testing.T) {
	cluster := fake.New(fake.Config{Seed: 1})
	require.NoError(t, cluster.CreateNamespace("tenant", list("limits.cpu=3045m limits.memory=8321144064")))
	for i := range 3 {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(10 * time.Minute)
	p := cluster.Start("headroom", func(p *fake.Process) fake.Program {
		program, err := p.Controller(migration.Options{})
		require.NoError(t, err)
		return program
	})
	p.Lag(fake.Pods, fake.Span{Min: 3 * time.Second, Max: 3 * time.Second})
	require.NoError(t, cluster.Migrate("tenant", "m", "vm0", fake.Outcome{}))
	const step = 10 * time.Millisecond
	var open time.Duration
	for range 2 * time.Minute / step {
		cluster.Advance(step)
		status := cluster.Quota("tenant", "tenant").Status
		if hard, used := status.Hard["limits.cpu"], status.Used["limits.cpu"]; hard.Cmp(used) > 0 {
			open += step
		}
	}
	require.Less(t, open, 200*time.Millisecond)
	require.Empty(t, cluster.Finish())
}
