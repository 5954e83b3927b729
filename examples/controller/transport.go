package main

import (
	"net/http"
	"strconv"
	"strings"

	"k8s.io/client-go/transport"
)

// counted counts the requests that write.
func (m *metrics) counted(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if verb := writes[request.Method]; verb != "" {
			resource, code := resourceOf(request.URL.Path), 0
			if response != nil {
				code = response.StatusCode
			}
			m.calls.WithLabelValues(resource, verb, strconv.Itoa(code)).Inc()
			if code == http.StatusConflict && verb != "create" {
				m.conflicts.WithLabelValues(resource).Inc()
			}
		}
		return response, err
	})
}

var writes = map[string]string{
	http.MethodPost:   "create",
	http.MethodPut:    "update",
	http.MethodPatch:  "patch",
	http.MethodDelete: "delete",
}

// resourceOf returns what a path of the API is about, such as resourcequotas.
func resourceOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		return "other"
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	return parts[0]
}

var _ transport.WrapperFunc = (*metrics)(nil).counted

type roundTripper func(request *http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
