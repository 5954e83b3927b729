package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/leaderelection"
	"sigs.k8s.io/yaml"
)

// manifests returns the objects that the kustomization names, by kind. Unknown fields are
// errors.
func manifests(t *testing.T) map[string]runtime.Object {
	t.Helper()
	var kustomization struct{ Resources []string }
	decode(t, read(t, "deploy/kustomization.yaml"), &kustomization)
	files, err := filepath.Glob("deploy/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(kustomization.Resources)+1, "every file is named by the kustomization")

	found := map[string]runtime.Object{}
	for _, name := range kustomization.Resources {
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(read(t, "deploy/"+name))))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			var kind metav1.TypeMeta
			require.NoError(t, yaml.Unmarshal(document, &kind))
			object := map[string]runtime.Object{
				"Namespace": &corev1.Namespace{}, "ServiceAccount": &corev1.ServiceAccount{}, "Service": &corev1.Service{},
				"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
				"Role": &rbacv1.Role{}, "RoleBinding": &rbacv1.RoleBinding{},
				"Deployment": &appsv1.Deployment{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
			}[kind.Kind]
			require.NotNil(t, object, "%s has a %s", name, kind.Kind)
			require.NoError(t, yaml.UnmarshalStrict(document, object), name)
			require.Nil(t, found[kind.Kind], "one %s", kind.Kind)
			found[kind.Kind] = object
		}
	}
	return found
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return data
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	require.NoError(t, yaml.Unmarshal(data, into))
}

// The pod is what the restricted Pod Security Standard asks for, its arguments are flags
// that there are, and its probes and ports are where it listens.
func TestDeployment(t *testing.T) {
	objects := manifests(t)
	deployment := objects["Deployment"].(*appsv1.Deployment)
	pod := deployment.Spec.Template.Spec
	require.EqualValues(t, 2, *deployment.Spec.Replicas)
	require.Equal(t, "restricted", objects["Namespace"].(*corev1.Namespace).Labels["pod-security.kubernetes.io/enforce"])
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	require.Len(t, pod.Containers, 1)
	container := pod.Containers[0]
	require.False(t, *container.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, []corev1.Capability{"ALL"}, container.SecurityContext.Capabilities.Drop)
	require.False(t, pod.HostNetwork)
	require.Empty(t, pod.Volumes)

	variables := map[string]string{}
	for _, variable := range container.Env {
		variables[variable.Name] = "set"
	}
	o, err := parseOptions(container.Args, func(name string) string { return variables[name] })
	require.NoError(t, err)
	require.True(t, o.leaderElect)
	require.Less(t, o.drainTime.Seconds(), float64(*pod.TerminationGracePeriodSeconds), "it ends before it is killed")
	ports := map[string]int32{}
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	require.Equal(t, map[string]int32{"metrics": 8080, "health": 8081}, ports)
	require.Equal(t, ":8080", o.metricsAddress)
	require.Equal(t, ":8081", o.healthAddress)

	labels := deployment.Spec.Template.Labels
	for _, selector := range []map[string]string{
		deployment.Spec.Selector.MatchLabels,
		objects["PodDisruptionBudget"].(*policyv1.PodDisruptionBudget).Spec.Selector.MatchLabels,
		objects["NetworkPolicy"].(*networkingv1.NetworkPolicy).Spec.PodSelector.MatchLabels,
		objects["Service"].(*corev1.Service).Spec.Selector,
	} {
		require.NotEmpty(t, selector)
		for name, value := range selector {
			require.Equal(t, value, labels[name])
		}
	}
}

// requireAllowed holds the roles to what is called: all of it is allowed, and nothing else but
// watching claims, which is for machines with backend storage, and ResourceClaims and their
// classes, which is for machines with devices.
// Each call is a verb, a group and a resource, such as "update /resourcequotas".
func requireAllowed(t *testing.T, called []string) {
	t.Helper()
	objects := manifests(t)
	var allowed []string
	for _, rules := range [][]rbacv1.PolicyRule{
		objects["ClusterRole"].(*rbacv1.ClusterRole).Rules, objects["Role"].(*rbacv1.Role).Rules,
	} {
		for _, rule := range rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						allowed = append(allowed, verb+" "+group+"/"+resource)
					}
				}
			}
		}
	}
	require.ElementsMatch(t, allowed, append(called, "watch /persistentvolumeclaims",
		"list resource.k8s.io/resourceclaims", "watch resource.k8s.io/resourceclaims",
		"list resource.k8s.io/deviceclasses", "watch resource.k8s.io/deviceclasses"))
}

var metricName = regexp.MustCompile(`\bheadroom_[a-z_]+`)

// names are those of our metrics that exist, histograms with their suffixes.
func names(m *metrics) []string { return slices.Sorted(maps.Keys(labels(m))) }

// labels are those of each of our metrics, in their order.
func labels(m *metrics) map[string][]string {
	descs := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(descs)
	close(descs)
	found := map[string][]string{}
	for desc := range descs {
		parts := regexp.MustCompile(`fqName: "(headroom_[a-z_]+)".*variableLabels: \{([a-z,]*)\}`).FindStringSubmatch(desc.String())
		if parts != nil {
			found[parts[1]] = strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' })
		}
	}
	return found
}

// The README explains each flag and each metric, with its labels.
func TestREADME(t *testing.T) {
	readme := string(read(t, "README.md"))
	for name, labels := range labels(newMetrics()) {
		require.Contains(t, readme, strings.ReplaceAll("| `"+name+"` | "+strings.Join(labels, ", ")+" | ", "|  |", "| |"))
	}
	for _, name := range metricName.FindAllString(readme, -1) {
		require.Contains(t, names(newMetrics()), name)
	}
}

// The runbook says of each metric and of each event what to do, and names no others.
func TestRunbook(t *testing.T) {
	runbook := string(read(t, "RUNBOOK.md"))
	for _, name := range names(newMetrics()) {
		require.Contains(t, runbook, "`"+name+"`")
	}
	for _, name := range metricName.FindAllString(runbook, -1) {
		require.Contains(t, names(newMetrics()), name)
	}

	// In the code, reasons are the string literals that look like this.
	literal := regexp.MustCompile(`"(Headroom[A-Z][A-Za-z]+|Nudged)"`)
	reasons := map[string]bool{}
	for _, pattern := range []string{"*.go", "../../migration/*.go", "../../ledger/applier/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, match := range literal.FindAllStringSubmatch(string(read(t, file)), -1) {
				reasons[match[1]] = true
			}
		}
	}
	require.Greater(t, len(reasons), 5)
	for reason := range reasons {
		require.Contains(t, runbook, "| `"+reason+"` |")
	}
	for _, match := range regexp.MustCompile("`(Headroom[A-Z][A-Za-z]+)`").FindAllStringSubmatch(runbook, -1) {
		require.Contains(t, reasons, match[1])
	}
}

// env is an environment.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	o, err := parseOptions(nil, env("POD_NAMESPACE", "headroom", "POD_NAME", "headroom-1"))
	require.NoError(t, err)
	require.Equal(t, "headroom", o.namespace)
	require.Equal(t, "headroom-1", o.identity)
	require.True(t, o.leaderElect)
	require.Equal(t, 15*time.Second, o.leaseDuration)
	require.Empty(t, o.pprofAddress, "profiles are served when somebody asks for them")
	require.Nil(t, o.policy.Budget)
	require.False(t, o.disabled)
}

// A flag goes before its environment variable, and that before the default.
func TestEnvironment(t *testing.T) {
	with := env("POD_NAMESPACE", "headroom", "HEADROOM_SHARDS", "4", "HEADROOM_SHARD", "2",
		"HEADROOM_LEADER_ELECT", "false", "HEADROOM_BUDGET", "limits.memory=64Gi, limits.cpu=32")
	o, err := parseOptions([]string{"--shard=3", "--namespace=system"}, with)
	require.NoError(t, err)
	require.Equal(t, shard{index: 3, count: 4}, o.shard)
	require.Equal(t, "system", o.namespace)
	require.False(t, o.leaderElect)
	text, err := json.Marshal(o.policy.Budget)
	require.NoError(t, err)
	require.Equal(t, `{"limits.cpu":"32","limits.memory":"64Gi"}`, string(text))
}

// --version asks for nothing else, and is no variable, which others may have set.
func TestVersion(t *testing.T) {
	o, err := parseOptions([]string{"--version"}, env())
	require.NoError(t, err)
	require.Equal(t, options{version: true}, o)
	o, err = parseOptions(nil, env("POD_NAMESPACE", "headroom", "HEADROOM_VERSION", "1.2"))
	require.NoError(t, err)
	require.False(t, o.version)
	require.NotEmpty(t, version())
}

func TestBadOptions(t *testing.T) {
	pod := env("POD_NAMESPACE", "headroom")
	for _, test := range []struct {
		args []string
		env  func(string) string
		says string
	}{
		{nil, env(), "--namespace is not set"},
		{[]string{"--shards=2", "--shard=2"}, pod, "--shard is 2, of --shards=2 the last is 1"},
		{[]string{"--shards=0"}, pod, "--shards is 0"},
		{[]string{"--budget=limits.memory"}, pod, `--budget: "limits.memory" is not like`},
		{[]string{"--budget=limits.cpu=-1"}, pod, `--budget: "limits.cpu=-1" is not like`},
		{[]string{"--leader-elect-renew-deadline=20s"}, pod, "lease duration > renew deadline"},
		{[]string{"--logging-format=xml"}, pod, `"xml", not text or json`},
		{[]string{"--concurrent-namespaces=0"}, pod, "--concurrent-namespaces is 0"},
		{[]string{"serve"}, pod, `unknown argument "serve"`},
		{[]string{"--unknown"}, pod, "unknown flag"},
		{nil, env("POD_NAMESPACE", "headroom", "HEADROOM_SHARDS", "many"), "$HEADROOM_SHARDS"},
	} {
		_, err := parseOptions(test.args, test.env)
		require.ErrorContains(t, err, test.says, "%v", test.args)
	}
}

// Each namespace belongs to one shard, and the shards are about as large as each other.
func TestShards(t *testing.T) {
	const namespaces = 10000
	for _, count := range []uint32{1, 2, 3, 8} {
		sizes := make([]int, count)
		for i := range namespaces {
			owners := 0
			for index := range count {
				if (shard{index, count}).has(fmt.Sprintf("tenant-%d", i)) {
					sizes[index]++
					owners++
				}
			}
			require.Equal(t, 1, owners)
		}
		for _, size := range sizes {
			require.InDelta(t, namespaces/int(count), size, namespaces/20, "%v", sizes)
		}
	}
	require.Equal(t, "headroom", shard{0, 1}.lease("headroom"))
	require.Equal(t, "headroom-2", shard{2, 3}.lease("headroom"))
}

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
