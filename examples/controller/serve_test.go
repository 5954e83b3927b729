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
	m := newMetrics()
	code, body := get(t, m.handler(), "/metrics")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "headroom_leader 0\n")
	require.Contains(t, body, `headroom_resourcequota_writes_total{action="raised"} 0`)
	require.Contains(t, body, "go_goroutines ")
	code, _ = get(t, m.handler(), "/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code)
	code, _ = get(t, http.DefaultServeMux, "/debug/pprof/")
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

// Requests are counted by method and status code.
func TestRequests(t *testing.T) {
	m := newMetrics()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }))
	defer server.Close()
	client := &http.Client{Transport: m.counted(http.DefaultTransport)}
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	require.EqualValues(t, 1, sum(t, m, "rest_client_requests_total", "method", "put"))
	require.EqualValues(t, 2, sum(t, m, "rest_client_requests_total", "code", "409"))
}
