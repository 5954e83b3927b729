package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("headroom_"+name, help, labels, nil)
}

var (
	migrations = desc("migrations", "Live migrations in flight, by state: queued, blocked (rejected by quota), charged (counted twice).", "namespace", "state")
	oldest     = desc("migrations_oldest_created", "Unix creation timestamp of the oldest live migration in flight, without those of which only a claim is left.", "namespace")
	waiting    = desc("migrations_waiting", "Live migrations that have no target pod, or one that is not scheduled, by what they wait for.", "namespace", "reason")
	deferred   = desc("migrations_deferred", "Live migrations that wait for room in a ResourceQuota, by reason.", "namespace", "resourcequota", "reason")
	offers     = desc("resourcequota_offers", "Live migrations for whose target pod a ResourceQuota has open room.", "namespace", "resourcequota")
	failing    = desc("resourcequota_write_failing", "1 if the last update of resourcequotas/status failed, by reason: forbidden, failed.", "namespace", "resourcequota", "reason")
	static     = desc("resourcequota_static", "Static limit (spec.hard) of a ResourceQuota that migrations concern.", "namespace", "resourcequota", "resource")
	raised     = desc("resourcequota_raised", "Enforced limit (status.hard) less the static limit (spec.hard), where it is higher.", "namespace", "resourcequota", "resource")
	temporary  = desc("resourcequota_temporary", "Usage that ends with a live migration: what migrations charge twice.", "namespace", "resourcequota", "resource")
	regular    = desc("resourcequota_regular", "Usage less temporary usage.", "namespace", "resourcequota", "resource")
	takenNow   = desc("resourcequota_taken", "Regular usage above the static limit that took room for live migrations.", "namespace", "resourcequota", "resource")
)

func (m *Metrics) counters() []prometheus.Collector {
	return []prometheus.Collector{m.writes, m.taken, m.refused, m.nudges, m.failure, m.blocked}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range m.counters() {
		c.Describe(descs)
	}
	for _, d := range []*prometheus.Desc{migrations, oldest, waiting, deferred, offers, failing, static, raised, temporary, regular, takenNow} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(samples chan<- prometheus.Metric) {
	for _, c := range m.counters() {
		c.Collect(samples)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		samples <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for name, n := range m.namespaces {
		n.collect(func(d *prometheus.Desc, value float64, labels ...string) {
			gauge(d, value, append([]string{name}, labels...)...)
		})
	}
}

// A gauge exports one sample of a namespace.
type gauge func(d *prometheus.Desc, value float64, labels ...string)

func (n *namespace) collect(export gauge) {
	count, created := map[quota.State]int{}, int64(0)
	for _, migration := range n.inFlight {
		count[migration.State]++
		if at := migration.Created; !migration.OnlyClaims() && !at.IsZero() && (created == 0 || at.Unix() < created) {
			created = at.Unix()
		}
	}
	for state, number := range count {
		export(migrations, float64(number), lower(state.String()))
	}
	if created != 0 {
		export(oldest, float64(created))
	}
	reasons := map[quota.DeferralReason]int{}
	for _, w := range n.waiting {
		reasons[w.Reason]++
	}
	for reason, number := range reasons {
		export(waiting, float64(number), string(reason))
	}
	for i := range n.quotas {
		q := &n.quotas[i]
		collectQuota(q, func(d *prometheus.Desc, value float64, labels ...string) {
			export(d, value, append([]string{q.Name}, labels...)...)
		})
	}
}

func collectQuota(q *applier.QuotaResult, export gauge) {
	export(offers, float64(len(q.Offered)))
	reasons := map[quota.DeferralReason]int{}
	for _, d := range q.Decision.Deferred {
		reasons[d.Reason]++
	}
	for reason, number := range reasons {
		export(deferred, float64(number), string(reason))
	}
	switch {
	case errors.Is(q.Err, applier.ErrForbidden):
		export(failing, 1, "forbidden")
	case q.Err != nil:
		export(failing, 1, "failed")
	}
	for name, limit := range q.Static {
		export(static, limit.AsApproximateFloat64(), string(name))
		export(temporary, amount(q.Decision.Temporary, name), string(name))
		export(regular, amount(q.Decision.Regular, name), string(name))
		if up := amount(q.Hard, name) - limit.AsApproximateFloat64(); up > 0 {
			export(raised, up, string(name))
		}
		if took := amount(q.Taken, name); took > 0 {
			export(takenNow, took, string(name))
		}
	}
}

func amount(list corev1.ResourceList, name corev1.ResourceName) float64 {
	q := list[name]
	return q.AsApproximateFloat64()
}
