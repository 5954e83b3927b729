package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/leaderelection"
)

func get(t *testing.T, handler http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	body, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	return w.Code, string(body)
}

func TestProbes(t *testing.T) {
	var missing error
	handler := health(func() error { return missing }, leaderelection.NewLeaderHealthzAdaptor(time.Second))
	for _, path := range []string{"/healthz", "/readyz"} {
		code, body := get(t, handler, path)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "ok\n", body)
	}
	missing = errors.New("a cache is not full")
	code, body := get(t, handler, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "a cache is not full\n", body)
	code, _ = get(t, handler, "/healthz")
	require.Equal(t, http.StatusOK, code)
}

func TestScrape(t *testing.T) {
	m := newMetrics(time.Now)
	code, body := get(t, m.handler(), "/metrics")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "headroom_leader 0\n")
	require.Contains(t, body, `headroom_quota_writes_total{action="raised"} 0`)
	require.Contains(t, body, "go_goroutines ")
	code, _ = get(t, m.handler(), "/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code)
	code, _ = get(t, profiles(), "/debug/pprof/")
	require.Equal(t, http.StatusOK, code)
}

// An address that is taken is an error; no address is none.
func TestServe(t *testing.T) {
	require.NoError(t, serve(t.Context(), "", nil, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	require.ErrorContains(t, serve(ctx, taken.Listener.Addr().String(), nil, nil), "address already in use")
}

// Requests that write are counted by what the path says that they are about.
func TestCountedRequests(t *testing.T) {
	m := newMetrics(time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }))
	defer server.Close()
	client := &http.Client{Transport: m.counted(http.DefaultTransport)}
	for _, call := range [][2]string{
		{http.MethodGet, "/api/v1/namespaces/a/resourcequotas/q"},
		{http.MethodPut, "/api/v1/namespaces/a/resourcequotas/q"},
		{http.MethodPost, "/api/v1/namespaces/a/events"},
		{http.MethodPatch, "/apis/kubevirt.io/v1/namespaces/a/virtualmachineinstancemigrations/m"},
		{http.MethodDelete, "/api/v1/namespaces/a"},
		{http.MethodPut, "/version"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), call[0], server.URL+call[1], nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	for _, resource := range []string{"resourcequotas", "events", "virtualmachineinstancemigrations", "namespaces", "other"} {
		require.EqualValues(t, 1, sum(t, m, "headroom_api_writes_total", "resource", resource), resource)
	}
	require.EqualValues(t, 5, sum(t, m, "headroom_api_writes_total", "code", "409"))
	require.EqualValues(t, 1, sum(t, m, "headroom_conflicts_total", "resource", "resourcequotas"))
	require.Zero(t, sum(t, m, "headroom_conflicts_total", "resource", "events"), "what exists already is no conflict")
}
