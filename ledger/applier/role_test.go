package applier_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// The ClusterRole of the package comment allows what is called (the server of these tests
// refuses anything else) and nothing besides, but for the watch of the cache.
func TestRole(t *testing.T) {
	s := full(t)
	require.Len(t, s.allowed.Rules, 2)
	for i, resource := range []string{"resourcequotas", "resourcequotas/status"} {
		require.Equal(t, []string{resource}, s.allowed.Rules[i].Resources)
		require.Equal(t, []string{""}, s.allowed.Rules[i].APIGroups)
	}

	s.conflict(1, func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"a": "b"} })
	s.apply()
	s.inFlight().apply()
	require.ElementsMatch(t, []string{"get", "list", "update"}, slices.Collect(maps.Keys(s.used)))
	require.ElementsMatch(t, []string{"get", "list", "watch"}, s.allowed.Rules[0].Verbs)
	require.Equal(t, []string{"update"}, s.allowed.Rules[1].Verbs)
}
