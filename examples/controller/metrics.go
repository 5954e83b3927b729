package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// metrics count what happens, and show what is: the latter when they are scraped. Amounts
// are in the units of a quota: cores, bytes, objects.
type metrics struct {
	registry *prometheus.Registry
	now      func() time.Time

	writes, conflicts, calls, taken *prometheus.CounterVec
	refusals, nudges, failures      prometheus.Counter
	wait                            prometheus.Histogram
	leader                          prometheus.Gauge

	mu          sync.Mutex
	byNamespace map[string]*figures
	exposure    map[corev1.ResourceName]float64 // what has come together already
}

// figures are those of one namespace that has migrations in flight or a raised quota.
type figures struct {
	inFlight []quota.Migration
	blocked  map[types.UID]time.Time // since when
	quotas   map[string]applier.QuotaResult
	open     map[corev1.ResourceName]float64 // room that regular workloads could take
	since    time.Time                       // of open
}

var _ applier.Metrics = (*metrics)(nil)

func newMetrics(now func() time.Time) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		now:      now,

		writes:    counters("headroom_quota_writes_total", "Updates of the status of ResourceQuotas: raised, lowered, restored (to spec.hard), or announced (an offer, for the guard).", "action"),
		conflicts: counters("headroom_conflicts_total", "Writes that the API server refused because the object had changed.", "resource"),
		calls:     counters("headroom_api_writes_total", "Requests to the API server that write, by what they are about and the status code of the answer (0: none).", "resource", "verb", "code"),
		taken:     counters("headroom_taken_total", "What regular workloads took of the room that was there for live migrations.", "resource"),
		refusals:  counter("headroom_quota_refusals_total", "Updates of the status of ResourceQuotas that RBAC, a webhook or a policy refused."),
		nudges:    counter("headroom_nudges_total", "Migrations of which KubeVirt had to be woken although the quota had room."),
		failures:  counter("headroom_reconcile_errors_total", "Reconciles of a namespace in which something failed, and was tried again."),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "headroom_blocked_seconds", Help: "For how long migrations were seen to be refused by quota until their target pod was charged.",
			Buckets: []float64{.02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300, 1000},
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{Name: "headroom_leader", Help: "1 if this replica works, 0 if it waits for the Lease."}),

		byNamespace: map[string]*figures{},
		exposure:    map[corev1.ResourceName]float64{},
	}
	m.registry.MustRegister(m.writes, m.conflicts, m.calls, m.taken, m.refusals, m.nudges, m.failures, m.wait, m.leader,
		present{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	for _, action := range []applier.Action{applier.Raised, applier.Lowered, applier.Restored, applier.Announced} {
		m.writes.WithLabelValues(label(action))
	}
	m.conflicts.WithLabelValues("resourcequotas")
	for _, name := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		m.taken.WithLabelValues(string(name))
	}
	return m
}

// Wrote implements applier.Metrics.
func (m *metrics) Wrote(_, _ string, action applier.Action) {
	m.writes.WithLabelValues(label(action)).Inc()
}

// Refused implements applier.Metrics.
func (m *metrics) Refused(_, _ string) { m.refusals.Inc() }

// Taken implements applier.Metrics.
func (m *metrics) Taken(_, _ string, amount corev1.ResourceList) {
	for name, q := range amount {
		m.taken.WithLabelValues(string(name)).Add(q.AsApproximateFloat64())
	}
}

func (m *metrics) nudged(context.Context, *kubevirtv1.VirtualMachineInstanceMigration) {
	m.nudges.Inc()
}

// reconciled records what a reconcile has found and done.
func (m *metrics) reconciled(_ context.Context, r migration.Report) {
	m.observed(r.Namespace, r.InFlight)
	m.applied(r.Namespace, r.Quotas, r.Result)
	if r.Err != nil {
		m.failures.Inc()
	}
}

// observed records what is in flight in namespace.
func (m *metrics) observed(namespace string, inFlight []quota.Migration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.byNamespace[namespace]
	if f == nil {
		if len(inFlight) == 0 {
			return
		}
		f = &figures{}
		m.byNamespace[namespace] = f
	}
	f.inFlight = inFlight
	blocked := map[types.UID]time.Time{}
	for _, migration := range inFlight {
		since, known := f.blocked[migration.UID]
		switch {
		case migration.State == quota.Blocked && known:
			blocked[migration.UID] = since
		case migration.State == quota.Blocked:
			blocked[migration.UID] = m.now()
		case migration.State == quota.Charged && known:
			m.wait.Observe(m.now().Sub(since).Seconds())
		}
	}
	f.blocked = blocked
}

// applied takes notice of what became of the quotas of namespace.
func (m *metrics) applied(namespace string, quotas []*corev1.ResourceQuota, result applier.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.byNamespace[namespace]
	if f == nil {
		if len(result.Quotas) == 0 {
			return
		}
		f = &figures{}
		m.byNamespace[namespace] = f
	}
	m.add(f)
	f.quotas = map[string]applier.QuotaResult{}
	f.open, f.since = map[corev1.ResourceName]float64{}, m.now()
	for _, q := range result.Quotas {
		f.quotas[q.Name] = q
		for _, rq := range quotas {
			if rq.Name == q.Name {
				open(f.open, rq, q)
			}
		}
	}
	if len(f.inFlight) == 0 && len(f.quotas) == 0 {
		delete(m.byNamespace, namespace)
	}
}

// stop forgets all that is, because another replica works now.
func (m *metrics) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.byNamespace {
		m.add(f)
	}
	m.byNamespace = map[string]*figures{}
}
