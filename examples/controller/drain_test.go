package main

import (
	"fmt"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/quota"
)

// drain drains a node of a simulated cluster, of which the quota is full, with what the
// controller does for a namespace. It calls during in the middle.
func drain(t *testing.T, o options, config fake.Config, during func(*fake.Cluster, *metrics)) (*fake.Cluster, *metrics) {
	t.Helper()
	const machines = 12
	cluster := fake.New(config)
	require.NoError(t, cluster.CreateNamespace("tenant", corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*machines, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*machines, resource.BinarySI),
	}))
	for i := range machines {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(10 * time.Minute) // kube-controller-manager has recounted: the quota is full
	m := newMetrics(cluster.Now)
	cluster.Start("headroom", func(p *fake.Process) fake.Program {
		m.stop() // the process before this one ended
		program, err := p.Controller(optionsOf(o, m))
		require.NoError(t, err)
		return program
	})
	cluster.Drain("node01")
	cluster.Until(time.Minute, func() bool { return len(m.byNamespace) > 0 && raised(cluster) })
	during(cluster, m)
	cluster.Advance(time.Hour)
	return cluster, m
}

func raised(cluster *fake.Cluster) bool {
	rq := cluster.Quota("tenant", "tenant")
	return !quota.Equal(rq.Spec.Hard, rq.Status.Hard)
}

// sum adds up the samples of a metric, of those with the label if there is one.
func sum(t *testing.T, m *metrics, name string, label ...string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	total := 0.0
	for _, family := range families {
		for _, sample := range family.GetMetric() {
			if family.GetName() == name && has(sample, label) {
				total += sample.GetCounter().GetValue() + sample.GetGauge().GetValue() + float64(sample.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

func has(sample *dto.Metric, label []string) bool {
	if len(label) == 0 {
		return true
	}
	for _, pair := range sample.GetLabel() {
		if pair.GetName() == label[0] && pair.GetValue() == label[1] {
			return true
		}
	}
	return false
}

func TestMetricsOfADrain(t *testing.T) {
	cluster, m := drain(t, options{}, fake.Config{Seed: 1}, func(cluster *fake.Cluster, m *metrics) {
		require.Positive(t, sum(t, m, "headroom_migrations"))
		require.Positive(t, sum(t, m, "headroom_raised", "resource", "limits.memory"))
		cluster.Advance(time.Second)
		require.Positive(t, sum(t, m, "headroom_oldest_migration_seconds"))
		require.Zero(t, sum(t, m, "headroom_deferred_migrations"))
	})
	require.Empty(t, cluster.Finish())
	require.Positive(t, sum(t, m, "headroom_quota_writes_total", "action", "raised"))
	require.Zero(t, sum(t, m, "headroom_taken_total"))
	require.Zero(t, sum(t, m, "headroom_reconcile_errors_total"))

	// What is left shows nothing that is not.
	require.Empty(t, m.byNamespace)
	require.Zero(t, sum(t, m, "headroom_migrations"))
	require.Zero(t, sum(t, m, "headroom_raised"))

	// The simulated cluster keeps its own account of the room that lay open.
	got, want := sum(t, m, "headroom_exposure_total", "resource", "limits.memory"), cluster.Exposure("limits.memory")
	require.Positive(t, want)
	require.InEpsilon(t, want, got, 0.5)
}

// A budget for one machine at a time makes the others wait, and is told as a reason.
func TestDeferred(t *testing.T) {
	o := options{}
	o.policy.Budget = corev1.ResourceList{"limits.memory": resource.MustParse("2773714688")}
	cluster, m := drain(t, o, fake.Config{Seed: 1, Policy: o.policy, Patience: time.Hour}, func(_ *fake.Cluster, m *metrics) {
		require.Positive(t, sum(t, m, "headroom_deferred_migrations", "reason", "BudgetUsed"))
	})
	require.Empty(t, cluster.Finish())
	require.Zero(t, sum(t, m, "headroom_deferred_migrations"))
}

// What is taken of the room for a migration is counted.
func TestTaken(t *testing.T) {
	_, m := drain(t, options{}, fake.Config{Seed: 1}, func(cluster *fake.Cluster, _ *metrics) {
		cluster.Until(time.Minute, func() bool { return cluster.Tenant("tenant").Steal() == nil })
	})
	require.Positive(t, sum(t, m, "headroom_taken_total"))
}

// Crashes and conflicts at any call neither break an invariant nor leave anything.
func TestDrainWithFaults(t *testing.T) {
	for seed := range uint64(5) {
		cluster, _ := drain(t, options{}, fake.Config{Seed: seed, Slack: 5 * time.Minute}, func(cluster *fake.Cluster, _ *metrics) {
			cluster.Inject(cluster.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1, fake.Timeout: 0.05}))
		})
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}
