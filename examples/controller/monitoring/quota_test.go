package monitoring

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/examples/controller/metrics"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
)

// The rules that these replace, on the figures of kube-state-metrics.
const mixin = `
groups:
- name: mixin
  rules:
  - {alert: KubeQuotaAlmostFull, for: 15m, expr: 'kube_resourcequota{type="used"} / ignoring(type) kube_resourcequota{type="hard"} > 0.9 < 1'}
  - {alert: KubeQuotaFullyUsed, for: 15m, expr: 'kube_resourcequota{type="used"} / ignoring(type) kube_resourcequota{type="hard"} == 1'}
`

// A prom is a Prometheus that scrapes a simulated cluster: kube-state-metrics and headroom.
type prom struct {
	t       *testing.T
	storage *teststorage.TestStorage
	groups  []*rules.Group
	last    map[string]map[string]labels.Labels // series of the last scrape, by target
}

func newProm(t *testing.T, storage *teststorage.TestStorage) *prom {
	t.Helper()
	p := &prom{t: t, storage: storage, last: map[string]map[string]labels.Labels{}}
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
	file := filepath.Join(t.TempDir(), "mixin.yaml")
	require.NoError(t, os.WriteFile(file, []byte(mixin), 0o600))
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(engine, p.storage),
		Appendable: p.storage,
		Queryable:  p.storage,
		Context:    t.Context(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     slog.New(slog.DiscardHandler),
		Parser:     promQL,
	})
	groups, errs := manager.LoadGroups(interval, labels.EmptyLabels(), "", nil, false, "rules.yaml", file)
	require.Empty(t, errs)
	for _, group := range groups {
		for _, rule := range group.AlertingRules() {
			rule.SetRestored(true)
		}
		p.groups = append(p.groups, group)
	}
	return p
}

// scrape stores what gatherer shows, and marks series that are gone as stale, as Prometheus
// does.
func (p *prom) scrape(target string, now time.Time, gatherer prometheus.Gatherer) {
	p.t.Helper()
	families, err := gatherer.Gather()
	require.NoError(p.t, err)
	app := p.storage.Appender(p.t.Context())
	at := now.UnixMilli()
	seen := map[string]labels.Labels{}
	for _, family := range families {
		for _, sample := range family.GetMetric() {
			pairs := []string{model.MetricNameLabel, family.GetName()}
			for _, pair := range sample.GetLabel() {
				pairs = append(pairs, pair.GetName(), pair.GetValue())
			}
			series := labels.FromStrings(pairs...)
			seen[series.String()] = series
			_, err := app.Append(0, series, at, sample.GetGauge().GetValue()+sample.GetCounter().GetValue())
			require.NoError(p.t, err)
		}
	}
	for name, series := range p.last[target] {
		if seen[name].IsEmpty() {
			_, err := app.Append(0, series, at, math.Float64frombits(value.StaleNaN))
			require.NoError(p.t, err)
		}
	}
	p.last[target] = seen
	require.NoError(p.t, app.Commit())
}

// firing evaluates all rules, and returns the alerts that fire, by name and namespace.
func (p *prom) firing(now time.Time) map[[2]string]bool {
	found := map[[2]string]bool{}
	for _, group := range p.groups {
		group.Eval(p.t.Context(), now)
		for _, rule := range group.AlertingRules() {
			require.NoError(p.t, rule.LastError())
			rule.ForEachActiveAlert(func(alert *rules.Alert) {
				if alert.State == rules.StateFiring {
					found[[2]string{rule.Name(), alert.Labels.Get("namespace")}] = true
				}
			})
		}
	}
	return found
}

const (
	interval = 30 * time.Second // of scrapes and of rules
	machines = 4
)

// A namespace with virtual machines that use fill of its quota.
type tenant struct {
	fill      float64
	migrating bool
}

func (n tenant) name() string {
	kind := "twin"
	if n.migrating {
		kind = "migrating"
	}
	return fmt.Sprintf("%s-%.0f", kind, 100*n.fill)
}

// kubeStateMetrics exports the quotas as kube-state-metrics does: of their status.
func kubeStateMetrics(cluster *fake.Cluster, tenants []tenant) prometheus.Gatherer {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kube_resourcequota", Help: "Information about resource quota."},
		[]string{"namespace", "resourcequota", "resource", "type"})
	for _, n := range tenants {
		rq := cluster.Quota(n.name(), n.name())
		for kind, list := range map[string]corev1.ResourceList{"hard": rq.Status.Hard, "used": rq.Status.Used} {
			for name, q := range list {
				gauge.WithLabelValues(rq.Namespace, rq.Name, string(name), kind).Set(q.AsApproximateFloat64())
			}
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(gauge)
	return registry
}

// A cluster has two namespaces for each fill, with the same virtual machines. In one of them
// they migrate.
func newCluster(t *testing.T) (*fake.Cluster, []tenant, prometheus.Gatherer) {
	t.Helper()
	cluster := fake.New(fake.Config{Seed: 1, Nodes: 10})
	var tenants []tenant
	for _, fill := range []float64{0.5, 0.88, 0.95, 1, 1.05} {
		for _, migrating := range []bool{true, false} {
			n := tenant{fill, migrating}
			tenants = append(tenants, n)
			require.NoError(t, cluster.CreateNamespace(n.name(), corev1.ResourceList{"limits.memory": resource.MustParse("1Ti")}))
			for i := range machines {
				require.NoError(t, cluster.CreateVMI(fake.NewVMI(n.name(), fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
			}
		}
	}
	cluster.Advance(10 * time.Minute)
	for _, n := range tenants {
		used := cluster.Quota(n.name(), n.name()).Status.Used["limits.memory"]
		require.NoError(t, cluster.EditQuota(n.name(), n.name(), func(hard corev1.ResourceList) {
			hard["limits.memory"] = *resource.NewQuantity(int64(used.AsApproximateFloat64()/n.fill), resource.BinarySI)
		}))
	}
	m := metrics.New(cluster.Now)
	cluster.Start("headroom", func(p *fake.Process) fake.Program {
		program, err := p.Controller(migration.Options{Metrics: m, Reconciled: m.Reconciled, Nudged: m.Nudged})
		require.NoError(t, err)
		return program
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	return cluster, tenants, registry
}

const hour = int(time.Hour / interval)

// hang starts a migration after an hour, and ends it three hours later.
func hang(t *testing.T, cluster *fake.Cluster, namespace string, i int) {
	t.Helper()
	switch i {
	case hour:
		require.NoError(t, cluster.Migrate(namespace, "hang", "vm0", fake.Outcome{Hang: true}))
	case 4 * hour:
		require.NoError(t, cluster.Abort(namespace, "hang"))
	}
}

// migrate starts a migration every minute for the hour after that.
func migrate(t *testing.T, cluster *fake.Cluster, namespace string, i int) {
	t.Helper()
	if i > 4*hour && i < 5*hour && i%2 == 0 {
		require.NoError(t, cluster.Migrate(namespace, fmt.Sprint("m", i), fmt.Sprint("vm", i/2%machines), fake.Outcome{}))
	}
}

// The alerts of a quota fire in a namespace in which virtual machines migrate when they fire
// in its twin, in which none does. Those of kubernetes-mixin do not.
func TestQuotaAlertsIgnoreMigrations(t *testing.T) {
	cluster, tenants, headroom := newCluster(t)
	p := newProm(t, teststorage.New(t))
	fired, differ := map[string]bool{}, map[string]bool{}
	each := func(act func(*testing.T, *fake.Cluster, string, int), i int) {
		for _, n := range tenants {
			if n.migrating {
				act(t, cluster, n.name(), i)
			}
		}
	}
	for i := range 6 * hour {
		// kube-state-metrics sees the offers of these, and no reset by kube-controller-manager,
		// which comes at multiples of 5 minutes after hang.
		each(migrate, i)
		cluster.Advance(50 * time.Millisecond)
		p.scrape("kube-state-metrics", cluster.Now(), kubeStateMetrics(cluster, tenants))
		each(hang, i)
		cluster.Advance(interval / 2)
		p.scrape("headroom", cluster.Now(), headroom)
		cluster.Advance(interval/2 - 100*time.Millisecond)
		firing := p.firing(cluster.Now())
		cluster.Advance(50 * time.Millisecond)
		for _, n := range tenants {
			if !n.migrating {
				continue
			}
			for _, alert := range []string{"QuotaAlmostFull", "QuotaFullyUsed", "QuotaExceeded"} {
				have, want := firing[[2]string{alert, n.name()}], firing[[2]string{alert, tenant{n.fill, false}.name()}]
				require.Equal(t, want, have, "%s in %s after %v", alert, n.name(), time.Duration(i)*interval)
				if have {
					fired[fmt.Sprint(alert, n.fill)] = true
				}
				alert = "Kube" + alert
				have, want = firing[[2]string{alert, n.name()}], firing[[2]string{alert, tenant{n.fill, false}.name()}]
				if have != want {
					differ[fmt.Sprintf("%s %v %v", alert, n.fill, have)] = true
				}
			}
		}
	}
	require.Equal(t, map[string]bool{"QuotaAlmostFull0.95": true, "QuotaFullyUsed1": true, "QuotaExceeded1.05": true}, fired)
	t.Log("other than in the twin:", differ)
	require.True(t, differ["KubeQuotaAlmostFull 0.88 true"], "it fires because of a migration")
	require.True(t, differ["KubeQuotaFullyUsed 1 false"], "it falls silent during one")
}
