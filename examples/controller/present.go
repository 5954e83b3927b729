package main

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// The gauges are there for namespaces with migrations in flight or a raised quota only, so
// that their number is that of what goes on, not that of namespaces.
var (
	inFlightDesc = prometheus.NewDesc("headroom_migrations", "Live migrations in flight, by state.", []string{"namespace", "state"}, nil)
	oldestDesc   = prometheus.NewDesc("headroom_oldest_migration_seconds", "Age of the oldest live migration in flight.", []string{"namespace"}, nil)
	deferredDesc = prometheus.NewDesc("headroom_deferred_migrations", "Live migrations that wait for room, by reason.", []string{"namespace", "quota", "reason"}, nil)
	raisedDesc   = prometheus.NewDesc("headroom_raised", "By how much an enforced limit (status.hard) is above the static one (spec.hard).", []string{"namespace", "quota", "resource"}, nil)
	aboveDesc    = prometheus.NewDesc("headroom_taken", "What regular workloads took of the room for migrations, as it is now.", []string{"namespace", "quota", "resource"}, nil)
	troubleDesc  = prometheus.NewDesc("headroom_quota_trouble", "1 for a quota that cannot be written: forbidden, or failed.", []string{"namespace", "quota", "reason"}, nil)
	exposureDesc = prometheus.NewDesc("headroom_exposure_total", "Room that regular workloads could have taken and should not, times the seconds that it lay open: enforced limits beyond what is used and what is available to them.", []string{"resource"}, nil)
)

// present shows what is, when it is scraped.
type present struct{ *metrics }

// Describe implements prometheus.Collector.
func (p present) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{inFlightDesc, oldestDesc, deferredDesc, raisedDesc, aboveDesc, troubleDesc, exposureDesc} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (p present) Collect(metrics chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, namespace := range slices.Sorted(maps.Keys(p.byNamespace)) {
		f := p.byNamespace[namespace]
		p.add(f)
		count := map[quota.State]int{}
		oldest := 0.0
		for _, migration := range f.inFlight {
			count[migration.State]++
			if !migration.Created.IsZero() {
				oldest = max(oldest, p.now().Sub(migration.Created.Time).Seconds())
			}
		}
		for state, n := range count {
			gauge(inFlightDesc, float64(n), namespace, label(state.String()))
		}
		if len(f.inFlight) > 0 {
			gauge(oldestDesc, oldest, namespace)
		}
		for _, q := range f.quotas {
			collectQuota(gauge, namespace, q)
		}
	}
	for name, amount := range p.exposure {
		metrics <- prometheus.MustNewConstMetric(exposureDesc, prometheus.CounterValue, amount, string(name))
	}
}

func collectQuota(gauge func(desc *prometheus.Desc, value float64, labels ...string), namespace string, q applier.QuotaResult) {
	deferred := map[quota.DeferralReason]int{}
	for _, d := range q.Decision.Deferred {
		deferred[d.Reason]++
	}
	for reason, n := range deferred {
		gauge(deferredDesc, float64(n), namespace, q.Name, string(reason))
	}
	for name := range q.Static {
		if up := float(q.Hard, name) - float(q.Static, name); up > 0 {
			gauge(raisedDesc, up, namespace, q.Name, string(name))
		}
	}
	for name := range q.Taken {
		gauge(aboveDesc, float(q.Taken, name), namespace, q.Name, string(name))
	}
	if reason := trouble(q); reason != "" {
		gauge(troubleDesc, 1, namespace, q.Name, reason)
	}
}

// add adds what has lain open since it was looked at last. The caller has the lock.
func (m *metrics) add(f *figures) {
	now := m.now()
	for name, amount := range f.open {
		m.exposure[name] += amount * now.Sub(f.since).Seconds()
	}
	f.since = now
}

// open adds to room what regular workloads could take of a raised quota and should not:
// what its enforced limits leave beyond what they may have.
func open(room map[corev1.ResourceName]float64, rq *corev1.ResourceQuota, q applier.QuotaResult) {
	for name := range q.Static {
		if extra := float(q.Hard, name) - float(rq.Status.Used, name) - float(q.Decision.Available, name); extra > 0 {
			room[name] += extra
		}
	}
}

func float(list corev1.ResourceList, name corev1.ResourceName) float64 {
	q := list[name]
	return q.AsApproximateFloat64()
}

func label[T ~string](value T) string { return strings.ToLower(string(value)) }

// trouble says why a quota is not as it should be; empty: it is.
func trouble(q applier.QuotaResult) string {
	switch {
	case errors.Is(q.Err, applier.ErrForbidden):
		return "forbidden"
	case q.Err != nil:
		return "failed"
	default:
		return ""
	}
}
