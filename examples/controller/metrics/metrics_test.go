package metrics

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

const machines = 12

// drain drains a node of a simulated cluster whose quota is full. It returns as soon as the
// quota is raised.
func drain(t *testing.T, policy quota.Policy) (*fake.Cluster, *Metrics) {
	t.Helper()
	cluster := fake.New(fake.Config{Seed: 1, Policy: policy})
	require.NoError(t, cluster.CreateNamespace("tenant", corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*machines, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*machines, resource.BinarySI),
	}))
	for i := range machines {
		require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	cluster.Advance(10 * time.Minute)
	m := New(cluster.Now)
	cluster.Start("headroom", func(p *fake.Process) fake.Program {
		program, err := p.Controller(migration.Options{
			Policy:  func(string) quota.Policy { return policy },
			Metrics: m, Reconciled: m.Reconciled, Nudged: m.Nudged,
		})
		require.NoError(t, err)
		return program
	})
	cluster.Drain("node01")
	raised := cluster.Until(time.Minute, func() bool { return count(t, m, "headroom_resourcequota_raised") > 0 })
	require.True(t, raised)
	return cluster, m
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

func count(t *testing.T, m *Metrics, name string) int {
	t.Helper()
	n, err := testutil.GatherAndCount(registry(m), name)
	require.NoError(t, err)
	return n
}

func TestDrain(t *testing.T) {
	cluster, m := drain(t, quota.Policy{})
	// The caches follow the API server within milliseconds.
	var samples map[string]float64
	at := func(metric string, name corev1.ResourceName) float64 {
		return samples[fmt.Sprintf(`headroom_resourcequota_%s{namespace="tenant",resource="%s",resourcequota="tenant"}`, metric, name)]
	}
	require.True(t, cluster.Until(time.Minute, func() bool {
		samples = values(t, m)
		rq := cluster.Quota("tenant", "tenant")
		exact := samples[`headroom_migrations{namespace="tenant",state="charged"}`] > 0
		for _, name := range []corev1.ResourceName{"limits.cpu", "limits.memory"} {
			exact = exact && near(at("static", name), amount(rq.Spec.Hard, name)) &&
				near(at("raised", name), amount(rq.Status.Hard, name)-amount(rq.Spec.Hard, name)) &&
				near(at("regular", name), amount(rq.Spec.Hard, name)) &&
				near(at("temporary", name), amount(rq.Status.Used, name)-amount(rq.Spec.Hard, name))
		}
		return exact
	}))
	created := samples[`headroom_migrations_oldest_created{namespace="tenant"}`]
	require.InDelta(t, cluster.Now().Unix(), created, 60)
	require.LessOrEqual(t, created, float64(cluster.Now().Unix()))
	require.Contains(t, samples, `headroom_resourcequota_offers{namespace="tenant",resourcequota="tenant"}`)

	cluster.Advance(time.Hour)
	require.Empty(t, cluster.Finish())
	samples = values(t, m)
	require.Positive(t, samples[`headroom_resourcequota_writes_total{action="raised"}`])
	for _, name := range []string{"headroom_taken_total", "headroom_reconcile_errors_total", "headroom_resourcequota_writes_refused_total"} {
		for series, value := range samples {
			if strings.HasPrefix(series, name) {
				require.Zero(t, value, series)
			}
		}
	}
	// Without migrations there is no series of a namespace.
	for series := range samples {
		require.NotContains(t, series, "namespace=")
	}
}

// With a budget for one virtual machine at a time the others wait.
func TestDeferred(t *testing.T) {
	cluster, m := drain(t, quota.Policy{Budget: corev1.ResourceList{"limits.memory": resource.MustParse("2773714688")}})
	require.True(t, cluster.Until(time.Minute, func() bool {
		samples := values(t, m)
		return samples[`headroom_migrations_deferred{namespace="tenant",reason="BudgetUsed",resourcequota="tenant"}`] > 0 &&
			samples[`headroom_migrations_waiting{namespace="tenant",reason="BudgetUsed"}`] > 0
	}))
}

func TestTaken(t *testing.T) {
	cluster, m := drain(t, quota.Policy{})
	thief := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "thief"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1015m"), "memory": resource.MustParse("2773714688")}},
	}}}}
	require.True(t, cluster.Until(time.Minute, func() bool {
		_, err := cluster.Client("tenant").CoreV1().Pods("tenant").Create(t.Context(), thief, metav1.CreateOptions{})
		return err == nil
	}))
	require.True(t, cluster.Until(time.Minute, func() bool { return count(t, m, "headroom_resourcequota_taken") > 0 }))
	require.True(t, cluster.Until(time.Minute, func() bool { return values(t, m)[`headroom_taken_total{resource="limits.memory"}`] > 0 }))
}

func TestWriteFailing(t *testing.T) {
	m := New(nil)
	m.Refused("tenant", "q")
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant", Result: applier.Result{Quotas: []applier.QuotaResult{
		{Name: "q", Err: fmt.Errorf("update: %w", applier.ErrForbidden)}, {Name: "r", Err: errors.New("timeout")},
	}}})
	samples := values(t, m)
	require.EqualValues(t, 1, samples[`headroom_resourcequota_write_failing{namespace="tenant",reason="forbidden",resourcequota="q"}`])
	require.EqualValues(t, 1, samples[`headroom_resourcequota_write_failing{namespace="tenant",reason="failed",resourcequota="r"}`])
	require.EqualValues(t, 1, samples[`headroom_resourcequota_writes_refused_total`])
}

// A reconcile that could not read keeps the gauges, one that found nothing removes them, and
// so does Reset.
func TestGaugesOfReports(t *testing.T) {
	start := time.Unix(1e9, 0)
	now := start
	m := New(func() time.Time { return now })
	inFlight := func(state quota.State) migration.Report {
		return migration.Report{Namespace: "tenant", InFlight: []quota.Migration{{UID: "1", State: state, Created: metav1.NewTime(start)}}}
	}
	const series = `headroom_migrations{namespace="tenant",state="blocked"}`
	m.Reconciled(t.Context(), inFlight(quota.Blocked))
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant", Err: errors.New("the API server is away")})
	require.EqualValues(t, 1, values(t, m)[series])
	require.EqualValues(t, 1, values(t, m)["headroom_reconcile_errors_total"])
	now = now.Add(3 * time.Second)
	m.Reconciled(t.Context(), inFlight(quota.Charged))
	require.EqualValues(t, 1, values(t, m)["headroom_migration_blocked_seconds"])
	require.NotContains(t, values(t, m), series)
	require.EqualValues(t, 1, count(t, m, "headroom_migrations_oldest_created"))
	left := inFlight(quota.Charged)
	left.InFlight[0].Shares = []quota.Share{{Traits: quota.Traits{Claim: true}}}
	m.Reconciled(t.Context(), left)
	require.Zero(t, count(t, m, "headroom_migrations_oldest_created"), "a claim that is left may be there for weeks")
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant"})
	require.Zero(t, count(t, m, "headroom_migrations"))

	m.Reconciled(t.Context(), inFlight(quota.Blocked))
	m.Reset()
	require.Zero(t, count(t, m, "headroom_migrations"))
}

// What migrations wait for is counted by reason, also where none is in flight.
func TestWaiting(t *testing.T) {
	m := New(nil)
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant", Waiting: []migration.Wait{
		{UID: "1", Reason: migration.UtilityVolumes}, {UID: "2", Reason: migration.UtilityVolumes}, {UID: "3", Reason: migration.NoNodeFits},
	}})
	samples := values(t, m)
	require.EqualValues(t, 2, samples[`headroom_migrations_waiting{namespace="tenant",reason="UtilityVolumes"}`])
	require.EqualValues(t, 1, samples[`headroom_migrations_waiting{namespace="tenant",reason="NoNodeFits"}`])
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant"})
	require.Zero(t, count(t, m, "headroom_migrations_waiting"))
}

// Names, units and help texts are as Prometheus wants them.
func TestLint(t *testing.T) {
	_, m := drain(t, quota.Policy{Budget: corev1.ResourceList{"limits.memory": resource.MustParse("2773714688")}})
	problems, err := testutil.GatherAndLint(registry(m))
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Amounts beyond float64 and int64 are exported all the same.
func TestLargeAmounts(t *testing.T) {
	m := New(nil)
	huge := corev1.ResourceList{"limits.memory": resource.MustParse("100E")}
	m.Reconciled(t.Context(), migration.Report{Namespace: "tenant", Result: applier.Result{Quotas: []applier.QuotaResult{{Name: "q", Static: huge}}}})
	value := values(t, m)[`headroom_resourcequota_static{namespace="tenant",resource="limits.memory",resourcequota="q"}`]
	require.InEpsilon(t, 1e20, value, 1e-9)
	require.False(t, math.IsInf(value, 0))
}
