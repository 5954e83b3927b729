package applier_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// logged returns what was logged since it was called last.
func (s *scene) logged(t *testing.T) func() string {
	t.Helper()
	logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(2)))
	s.ctx = klog.NewContext(s.ctx, logger)
	sink, ok := logger.GetSink().(ktesting.Underlier)
	require.True(t, ok)
	before := ""
	return func() string {
		all := sink.GetBuffer().String()
		defer func() { before = all }()
		return strings.TrimPrefix(all, before)
	}
}

// What the events tell is in the log of the context, too, and so is each write.
func TestLogs(t *testing.T) {
	s := full(t)
	logged := s.logged(t)
	s.apply()
	require.Contains(t, logged(), `Wrote enforced limits resourceQuota="tenant/q" action="Raised" why="room is open for 1 target pod" hard="limits.cpu=5"`)
	s.apply()
	require.Empty(t, logged())

	s.use("q", "limits.cpu=5")
	s.inFlight().apply()
	s.pass(2 * time.Second).apply()
	s.pass(2 * time.Second).apply()
	require.Contains(t, logged(), `Regular workloads have taken room of live migrations resourceQuota="tenant/q" amount="limits.cpu=1"`)

	s = full(t)
	logged = s.logged(t)
	s.refuse(denied("", http.StatusForbidden))
	for range 2 {
		_, err := s.applier.Apply(s.ctx, "tenant")
		require.Error(t, err)
	}
	require.Equal(t, 1, strings.Count(logged(), "Cannot write enforced limits"))
}
