package metrics

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// registry returns a registry that checks what is collected against what is described.
func registry(m *Metrics) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(m)
	return r
}

// values returns what a scrape shows, by series. Of a histogram it is the count.
func values(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := registry(m).Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, family := range families {
		for _, sample := range family.GetMetric() {
			var labels []string
			for _, pair := range sample.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
			}
			series := family.GetName()
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			found[series] = sample.GetCounter().GetValue() + sample.GetGauge().GetValue() + float64(sample.GetHistogram().GetSampleCount())
		}
	}
	return found
}
