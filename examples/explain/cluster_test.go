package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// An apiServer answers list requests as kube-apiserver does, a few objects a page.
type apiServer struct {
	objects  []map[string]any
	pageSize int
	noKube   bool           // no KubeVirt
	status   map[string]int // by resource: what is answered instead
	expire   bool           // the second page of every list is Gone, once

	mu       sync.Mutex
	requests []string
}

var resourceOf = map[string]string{
	"ResourceQuota":                   "resourcequotas",
	"LimitRange":                      "limitranges",
	"Pod":                             "pods",
	"Event":                           "events",
	"PersistentVolumeClaim":           "persistentvolumeclaims",
	"VirtualMachineInstance":          "virtualmachineinstances",
	"VirtualMachineInstanceMigration": "virtualmachineinstancemigrations",
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.URL.RequestURI())
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	resource := path[len(path)-1]
	namespace := ""
	if len(path) > 2 && path[len(path)-3] == "namespaces" {
		namespace = path[len(path)-2]
	}
	query := r.URL.Query()
	switch {
	case s.noKube && path[0] == "apis":
		answer(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	case s.status[resource] != 0:
		answer(w, s.status[resource], metav1.StatusReasonForbidden, resource+" is forbidden")
		return
	case s.expire && query.Get("continue") != "":
		answer(w, http.StatusGone, metav1.StatusReasonExpired, "The provided continue parameter is too old")
		return
	}
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		answer(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	var items []map[string]any
	for _, o := range s.objects {
		meta := o["metadata"].(map[string]any)
		set := labels.Set{}
		if l, ok := meta["labels"].(map[string]any); ok {
			for k, v := range l {
				set[k] = v.(string)
			}
		}
		kind := o["kind"].(string)
		if resourceOf[kind] == resource && (namespace == "" || meta["namespace"] == namespace) && selector.Matches(set) {
			items = append(items, o)
		}
	}
	list := map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}}
	from, _ := strconv.Atoi(query.Get("continue"))
	to := len(items)
	if query.Get("limit") != "" && from+s.pageSize < to {
		to = from + s.pageSize
		list["metadata"] = map[string]any{"resourceVersion": "7", "continue": strconv.Itoa(to)}
	}
	list["items"] = slices.Concat([]map[string]any{}, items[from:to])
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

func answer(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

// start serves s and returns the path of a kubeconfig for it. Its current context
// is of the namespace team-a.
func (s *apiServer) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return kubeconfig(t, server.URL)
}

func kubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {}}]
contexts:
- {name: here, context: {cluster: c, user: u, namespace: team-a}}
- {name: there, context: {cluster: c, user: u, namespace: tenant}}
current-context: here
`, url)), 0o600))
	return path
}

// twoNamespaces are the objects of the test data: team-a and tenant.
func twoNamespaces(t *testing.T) []map[string]any {
	t.Helper()
	var objects []map[string]any
	for _, file := range []string{"list.yaml", "drain/quotas.yaml", "drain/pods.yaml", "drain/vmis.yaml", "drain/vmims.json"} {
		objects = append(objects, objectsOf(t, []byte(read(t, "testdata/"+file)))...)
	}
	return objects
}

// body is the output without its first line, which names the source.
func body(output string) string {
	_, rest, _ := strings.Cut(output, "\n")
	return rest
}

func TestClusterSaysWhatFilesSay(t *testing.T) {
	fromFiles := body(explainWith(t, "", "-f", "testdata/drain").stdout)
	for _, pageSize := range []int{1, 2, 1000} {
		server := &apiServer{objects: twoNamespaces(t), pageSize: pageSize}
		got := explainWith(t, "", "--kubeconfig", server.start(t))
		require.Equal(t, exitOK, got.code, got.stderr)
		require.Equal(t, "Cluster here\n"+fromFiles, got.stdout, "pages of %d", pageSize)
		require.Empty(t, got.stderr)
	}
}

// TestPagesAreFollowed looks at the requests themselves.
func TestPagesAreFollowed(t *testing.T) {
	server := &apiServer{objects: twoNamespaces(t), pageSize: 2}
	require.Equal(t, exitOK, explainWith(t, "", "--kubeconfig", server.start(t), "-A").code)
	var pods []string
	for _, uri := range server.requests {
		require.Contains(t, uri, "limit=500", uri)
		if strings.HasPrefix(uri, "/api/v1/pods?") {
			require.Contains(t, uri, "labelSelector=kubevirt.io+in+%28virt-launcher%2Chotplug-disk%29")
			pods = append(pods, uri)
		}
	}
	require.Len(t, pods, 4, "7 pods, 2 a page")
	require.Contains(t, pods[3], "continue=6")
}

func TestExpiredPagesAreReadAgain(t *testing.T) {
	server := &apiServer{objects: twoNamespaces(t), pageSize: 2, expire: true}
	got := explainWith(t, "", "--kubeconfig", server.start(t))
	require.Equal(t, body(explainWith(t, "", "-f", "testdata/drain").stdout), body(got.stdout), got.stderr)
}

func TestClusterNamespaces(t *testing.T) {
	config := (&apiServer{objects: twoNamespaces(t), pageSize: 500}).start(t)
	list := body(explainWith(t, "", "-f", "testdata/list.yaml").stdout)
	require.Equal(t, "Cluster here\n"+list, explainWith(t, "", "--kubeconfig", config, "-n", "tenant").stdout)
	require.Equal(t, "Cluster there\n"+list, explainWith(t, "", "--kubeconfig", config, "--context", "there").stdout)
	all := explainWith(t, "", "--kubeconfig", config, "--all-namespaces").stdout
	require.Less(t, strings.Index(all, "NAMESPACE team-a"), strings.Index(all, "NAMESPACE tenant"))
	require.Equal(t, "Cluster here\n\nNAMESPACE nobody\n\nNo ResourceQuota: nothing limits its migrations.\n\nNo migration is in flight.\n",
		explainWith(t, "", "--kubeconfig", config, "-n", "nobody").stdout)
	t.Setenv("KUBECONFIG", config)
	require.Contains(t, explainWith(t, "").stdout, "NAMESPACE team-a")
}

func TestClusterWithoutKubeVirt(t *testing.T) {
	server := &apiServer{objects: twoNamespaces(t), pageSize: 500, noKube: true}
	got := explainWith(t, "", "--kubeconfig", server.start(t), "-n", "tenant")
	require.Equal(t, exitOK, got.code, got.stderr)
	golden(t, "no-kubevirt", got.stdout)
}

func TestClusterErrors(t *testing.T) {
	config := (&apiServer{status: map[string]int{"pods": http.StatusForbidden}}).start(t)
	refused(t, exitInput, "explain: cannot list pods in namespace team-a: pods is forbidden\n", "", "--kubeconfig", config)
	refused(t, exitInput, "explain: cannot list pods: pods is forbidden\n", "", "--kubeconfig", config, "-A")
	refused(t, exitInput, "explain: no cluster: context \"nowhere\" does not exist\n", "", "--kubeconfig", config, "--context", "nowhere")

	config = (&apiServer{status: map[string]int{"virtualmachineinstancemigrations": http.StatusForbidden}}).start(t)
	refused(t, exitInput, "explain: cannot list virtualmachineinstancemigrations in namespace team-a: virtualmachineinstancemigrations is forbidden\n",
		"", "--kubeconfig", config)

	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	got := explainWith(t, "", "--kubeconfig", kubeconfig(t, gone.URL))
	require.Equal(t, exitInput, got.code)
	require.Empty(t, got.stdout)
	require.Contains(t, got.stderr, "explain: cannot list virtualmachineinstancemigrations in namespace team-a: ")
	require.Contains(t, got.stderr, "connection refused")
}

func TestNoKubeconfig(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	refused(t, exitInput, "explain: no cluster: there is no kubeconfig in $KUBECONFIG or ~/.kube/config; "+
		"name one with --kubeconfig, or files with -f\n", "")

	broken := filepath.Join(t.TempDir(), "broken")
	require.NoError(t, os.WriteFile(broken, []byte("clusters: 7\n"), 0o600))
	got := explainWith(t, "", "--kubeconfig", broken)
	require.Equal(t, exitInput, got.code)
	require.Contains(t, got.stderr, "explain: no cluster: ")
	require.Empty(t, got.stdout)
}
