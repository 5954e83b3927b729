package main

import (
	"net/http"
	_ "net/http/pprof" // in http.DefaultServeMux

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	headroom "github.com/vmquota/headroom/examples/controller/metrics"
)

// metrics are those of the library and those of this process.
type metrics struct {
	*headroom.Metrics
	registry *prometheus.Registry
	leader   prometheus.Gauge
	requests *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		Metrics:  headroom.New(nil),
		registry: prometheus.NewRegistry(),
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "headroom_leader", Help: "1 if this replica is the leader, 0 if it waits for the Lease."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rest_client_requests_total", Help: "Requests to the API server, by method and status code."}, []string{"method", "code"}),
	}
	m.registry.MustRegister(m.Metrics, m.leader, m.requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return m
}

// counted counts the requests to the API server.
func (m *metrics) counted(next http.RoundTripper) http.RoundTripper {
	return promhttp.InstrumentRoundTripperCounter(m.requests, next)
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	return mux
}
