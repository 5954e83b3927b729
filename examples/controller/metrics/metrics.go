// Package metrics exports what a [migration.Controller] does as Prometheus metrics. It is a
// module of its own, so that the library does not require Prometheus.
//
//	m := metrics.New(nil)
//	registry.MustRegister(m)
//	options.Metrics, options.Reconciled, options.Nudged = m, m.Reconciled, m.Nudged
//
// Names and labels follow kube-state-metrics: namespace, resourcequota, resource. Amounts are
// in the units of a ResourceQuota: cores, bytes, objects. Scrape with honor_labels, as
// kube-state-metrics is scraped, or the label namespace is renamed to exported_namespace.
//
// The gauges are exported only for namespaces with migrations in flight and for
// ResourceQuotas that migrations concern, so their number depends on what migrates, not on
// the size of the cluster.
package metrics

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// Metrics is a prometheus.Collector. Its methods Reconciled, Nudged, Wrote, Refused and Taken
// are the hooks of migration.Options. It is safe for concurrent use.
type Metrics struct {
	now func() time.Time

	writes, taken            *prometheus.CounterVec
	refused, nudges, failure prometheus.Counter
	blocked                  prometheus.Histogram

	mu         sync.Mutex
	namespaces map[string]*namespace
}

// namespace is what the last reconcile found.
type namespace struct {
	inFlight []quota.Migration
	waiting  []migration.Wait
	blocked  map[types.UID]time.Time // since when each has been seen Blocked
	quotas   []applier.QuotaResult
}

var (
	_ applier.Metrics      = (*Metrics)(nil)
	_ prometheus.Collector = (*Metrics)(nil)
)

// New returns Metrics that are not registered. If now is nil, it is time.Now.
func New(now func() time.Time) *Metrics {
	if now == nil {
		now = time.Now
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &Metrics{
		now:     now,
		writes:  counters("headroom_resourcequota_writes_total", "Updates of resourcequotas/status: raised, lowered, restored (to spec.hard), or announced (an offer, for the guard).", "action"),
		refused: counter("headroom_resourcequota_writes_refused_total", "Updates of resourcequotas/status that RBAC, a webhook or a policy refused."),
		taken:   counters("headroom_taken_total", "Room for live migrations that regular workloads took.", "resource"),
		nudges:  counter("headroom_nudges_total", "Migrations for which KubeVirt was woken because the quota had room."),
		failure: counter("headroom_reconcile_errors_total", "Reconciles of a namespace that failed and were retried."),
		blocked: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "headroom_migration_blocked_seconds", Help: "Time from the first reconcile that saw a migration rejected by quota to the one that saw its target pod charged.",
			Buckets: []float64{.02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300, 1000},
		}),
		namespaces: map[string]*namespace{},
	}
	// Series that alerts take the increase of exist from the start.
	for _, action := range []applier.Action{applier.Raised, applier.Lowered, applier.Restored, applier.Announced} {
		m.writes.WithLabelValues(lower(action))
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		m.taken.WithLabelValues(string(name))
	}
	return m
}

// Wrote implements applier.Metrics.
func (m *Metrics) Wrote(_, _ string, action applier.Action) {
	m.writes.WithLabelValues(lower(action)).Inc()
}

// Refused implements applier.Metrics.
func (m *Metrics) Refused(_, _ string) { m.refused.Inc() }

// Taken implements applier.Metrics.
func (m *Metrics) Taken(_, _ string, amount corev1.ResourceList) {
	for name, q := range amount {
		m.taken.WithLabelValues(string(name)).Add(q.AsApproximateFloat64())
	}
}

// Nudged is for migration.Options.Nudged.
func (m *Metrics) Nudged(context.Context, *kubevirtv1.VirtualMachineInstanceMigration) {
	m.nudges.Inc()
}

// Reconciled is for migration.Options.Reconciled. A reconcile that failed before it could
// read anything changes no gauge.
func (m *Metrics) Reconciled(_ context.Context, r migration.Report) {
	if r.Err != nil {
		m.failure.Inc()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(r.InFlight)+len(r.Waiting)+len(r.Result.Quotas) == 0 {
		if r.Err == nil {
			delete(m.namespaces, r.Namespace)
		}
		return
	}
	before := m.namespaces[r.Namespace]
	if before == nil {
		before = &namespace{}
	}
	m.namespaces[r.Namespace] = &namespace{
		inFlight: r.InFlight, waiting: r.Waiting, blocked: m.since(before.blocked, r.InFlight), quotas: r.Result.Quotas,
	}
}

// since returns since when each of inFlight has been Blocked, and observes those that have
// been charged since.
func (m *Metrics) since(before map[types.UID]time.Time, inFlight []quota.Migration) map[types.UID]time.Time {
	blocked := map[types.UID]time.Time{}
	for _, migration := range inFlight {
		since, known := before[migration.UID]
		switch {
		case migration.State == quota.Blocked && known:
			blocked[migration.UID] = since
		case migration.State == quota.Blocked:
			blocked[migration.UID] = m.now()
		case migration.State == quota.Charged && known:
			m.blocked.Observe(m.now().Sub(since).Seconds())
		}
	}
	return blocked
}

// Reset removes all gauges. Call it when Work of the Controller has returned, because another
// replica exports them now. The counters stay.
func (m *Metrics) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.namespaces = map[string]*namespace{}
}

func lower[T ~string](value T) string { return strings.ToLower(string(value)) }
