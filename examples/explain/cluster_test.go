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
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// An apiServer answers discovery, get and list requests as kube-apiserver does, a few objects a
// page.
type apiServer struct {
	objects   []map[string]any
	pageSize  int
	missing   map[string]bool // API groups
	forbidden map[string]bool // by resource

	mu       sync.Mutex
	requests []string
}

// kindOf are the resources by API group.
var kindOf = map[string]map[string]string{
	"/api/v1": {
		"resourcequotas": "ResourceQuota", "limitranges": "LimitRange", "pods": "Pod", "events": "Event",
		"persistentvolumeclaims": "PersistentVolumeClaim", "namespaces": "Namespace",
	},
	"/apis/kubevirt.io/v1": {
		"virtualmachineinstances": "VirtualMachineInstance", "virtualmachineinstancemigrations": "VirtualMachineInstanceMigration",
	},
	"/apis/coordination.k8s.io/v1": {"leases": "Lease"},
	"/apis/resource.k8s.io/v1":     {"resourceclaims": "ResourceClaim", "deviceclasses": "DeviceClass"},
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.URL.RequestURI())
	w.Header().Set("Content-Type", "application/json")
	if answer := s.discovery(r.URL.Path); answer != nil {
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	rest := path[2:]
	if path[0] == "apis" {
		rest = path[3:]
	}
	namespace, name := "", ""
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	if len(rest) > 1 {
		name = rest[1]
	}
	resource := rest[0]
	kind := ""
	for _, kinds := range kindOf {
		kind += kinds[resource]
	}
	if s.forbidden[resource] {
		fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, resource+" is forbidden")
		return
	}
	query := r.URL.Query()
	selector, _ := labels.Parse(query.Get("labelSelector"))
	fieldSelector, _ := fields.ParseSelector(query.Get("fieldSelector"))
	var items []map[string]any
	for _, o := range s.objects {
		meta := o["metadata"].(map[string]any)
		set, about := labels.Set{}, fields.Set{}
		l, _ := meta["labels"].(map[string]any)
		for k, v := range l {
			set[k] = v.(string)
		}
		if involved, ok := o["involvedObject"].(map[string]any); ok {
			about["reason"], about["involvedObject.kind"] = o["reason"].(string), involved["kind"].(string)
		}
		if o["kind"] == kind && (namespace == "" || meta["namespace"] == namespace) && (name == "" || meta["name"] == name) &&
			selector.Matches(set) && fieldSelector.Matches(about) {
			items = append(items, o)
		}
	}
	if name != "" {
		if len(items) == 0 {
			fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", resource, name))
			return
		}
		_ = json.NewEncoder(w).Encode(items[0])
		return
	}
	list := map[string]any{"kind": kind + "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}}
	from, _ := strconv.Atoi(query.Get("continue"))
	to := len(items)
	if query.Get("limit") != "" && from+s.pageSize < to {
		to = from + s.pageSize
		list["metadata"] = map[string]any{"resourceVersion": "7", "continue": strconv.Itoa(to)}
	}
	list["items"] = slices.Concat([]map[string]any{}, items[from:to])
	_ = json.NewEncoder(w).Encode(list)
}

// discovery returns what the API server says of its resources at path, nil if that is another one.
func (s *apiServer) discovery(path string) any {
	group := func(name string) metav1.APIGroup {
		version := metav1.GroupVersionForDiscovery{GroupVersion: name + "/v1", Version: "v1"}
		return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	}
	switch {
	case path == "/api":
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	case path == "/apis":
		var list metav1.APIGroupList
		for _, name := range []string{"kubevirt.io", "coordination.k8s.io", "resource.k8s.io"} {
			if !s.missing[name] {
				list.Groups = append(list.Groups, group(name))
			}
		}
		return list
	case kindOf[path] != nil:
		list := metav1.APIResourceList{GroupVersion: strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/")}
		for name, kind := range kindOf[path] {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, Kind: kind, Namespaced: name != "namespaces" && name != "deviceclasses", Verbs: metav1.Verbs{"get", "list"}})
		}
		return list
	}
	return nil
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

// run runs the program against s. The current context of its kubeconfig is of the namespace
// team-a.
func (s *apiServer) run(t *testing.T, args ...string) result {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	require.NoError(t, os.WriteFile(path, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {}}]
contexts:
- {name: here, context: {cluster: c, user: u, namespace: team-a}}
- {name: there, context: {cluster: c, user: u, namespace: tenant}}
current-context: here
`, server.URL)), 0o600))
	return runWith(t, "", append(args, "--kubeconfig", path, "--cache-dir", dir)...)
}

// newServer has the objects of the test data: the namespaces team-a and tenant.
func newServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{pageSize: 500, forbidden: map[string]bool{}}
	for _, file := range []string{"list.yaml", "drain/quotas.yaml", "drain/pods.yaml", "drain/vmis.yaml", "drain/vmims.json"} {
		s.objects = append(s.objects, objectsOf(t, contents(t, "testdata/"+file))...)
	}
	for _, name := range []string{"team-a", "tenant", "idle"} {
		s.objects = append(s.objects, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": name}})
	}
	return s
}

const noLease = "\nThere is no Lease headroom/headroom: unless headroom is part of another controller, nobody enforces\nthe limits.\n"

// fromFiles is the answer from the files of the same state, as the cluster's.
func fromFiles(t *testing.T, file string) string {
	t.Helper()
	return strings.Replace(body(runWith(t, "", "explain", "-f", "testdata/"+file).stdout), "\nSTATIC ", noLease+"\nSTATIC ", 1)
}

func TestClusterSaysWhatFilesSay(t *testing.T) {
	for _, pageSize := range []int{1, 2, 1000} {
		server := newServer(t)
		server.pageSize = pageSize
		got := server.run(t, "explain")
		require.Equal(t, exitOK, got.code, got.stderr)
		require.Equal(t, "Cluster here\n"+fromFiles(t, "drain"), got.stdout, "pages of %d", pageSize)
		require.Empty(t, got.stderr)
		for _, uri := range server.requests {
			if strings.Contains(uri, "/pods?") {
				require.Contains(t, uri, "limit=500")
				require.Contains(t, uri, "labelSelector=")
			}
		}
	}
}

func TestClusterNamespaces(t *testing.T) {
	server := newServer(t)
	require.Equal(t, "Cluster here\n"+fromFiles(t, "list.yaml"), server.run(t, "explain", "-n", "tenant").stdout)
	require.Equal(t, "Cluster there\n"+fromFiles(t, "list.yaml"), server.run(t, "explain", "--context", "there").stdout)
	all := server.run(t, "-A").stdout
	require.Less(t, strings.Index(all, "NAMESPACE team-a"), strings.Index(all, "NAMESPACE tenant"))
	require.NotContains(t, all, "idle")
	require.Contains(t, server.run(t, "-n", "idle").stdout, "No ResourceQuota: nothing limits its migrations.\n\nNo migration is in flight.\n")
	require.Equal(t, result{code: exitError, stderr: "error: namespaces \"typo\" not found\n"}, server.run(t, "-n", "typo"))
	got := server.run(t, "forecast", "-A")
	require.Equal(t, exitRefused, got.code, got.stderr)
	require.Contains(t, got.stdout, "NAMESPACE tenant: quota would refuse 1 of 1 VMs")
	require.NotContains(t, strings.Join(server.requests[len(server.requests)-5:], " "), "leases")
}

func TestClusterWithoutKubeVirt(t *testing.T) {
	server := newServer(t)
	server.missing = map[string]bool{"kubevirt.io": true}
	got := server.run(t, "explain", "-n", "tenant")
	require.Equal(t, exitOK, got.code, got.stderr)
	golden(t, "testdata/no-kubevirt.golden", got.stdout)
}

func TestClusterEventsAndLeader(t *testing.T) {
	server := newServer(t)
	for _, document := range strings.Split(contents(t, "testdata/events.yaml"), "---\n") {
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(asJSON(t, document)), &object))
		server.objects = append(server.objects, object)
	}
	got := server.run(t, "explain", "-n", "tenant")
	require.Contains(t, got.stdout, "Event HeadroomRefused on ResourceQuota q, last at 2026-11-23 14:05:00 UTC: the API server refuses it\n")
	require.Contains(t, got.stdout, "headroom-7d9f has not renewed Lease headroom/headroom")
	require.Contains(t, server.run(t, "explain", "-n", "tenant", "--lease", "headroom/headroom-2").stdout, "There is no Lease headroom/headroom-2")
	server.forbidden = map[string]bool{"events": true, "leases": true, "namespaces": true}
	got = server.run(t, "explain", "-n", "tenant")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stdout, "Events cannot be listed: a target pod that needs more")
	require.Contains(t, got.stdout, "Lease headroom/headroom cannot be read")
}

// What devices are charged is read from a cluster as from files. An API server without their API, or
// that does not let them be read, is no error.
func TestDevices(t *testing.T) {
	server := newServer(t)
	for _, document := range strings.Split(contents(t, "testdata/devices.yaml"), "---\n") {
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(asJSON(t, document)), &object))
		server.objects = append(server.objects, object)
	}
	server.objects = append(server.objects, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": "lab"}})
	const twice = "Will be charged twice: count/resourceclaims.resource.k8s.io 1,\n  gpu.deviceclass.resource.k8s.io/devices 1, requests.example.com/gpu 1."
	require.Contains(t, fromFiles(t, "devices.yaml"), twice)
	require.Equal(t, "Cluster here\n"+fromFiles(t, "devices.yaml"), server.run(t, "explain", "-n", "lab").stdout)
	server.forbidden = map[string]bool{"deviceclasses": true}
	got := server.run(t, "explain", "-n", "lab").stdout
	require.Contains(t, got, "gpu.deviceclass.resource.k8s.io/devices 1.\n")
	require.Contains(t, got, "Note: DeviceClasses cannot be listed: what devices of virtual machines are charged is not known in")
	server.missing = map[string]bool{"resource.k8s.io": true}
	got = server.run(t, "explain", "-n", "lab").stdout
	require.NotContains(t, got, "charged twice:")
	require.NotContains(t, got, "Note:")
}

// A target pod that needs more than its source is seen by the event of its refusal.
func TestRefusalsAreRead(t *testing.T) {
	server := newServer(t)
	var event map[string]any
	for _, o := range server.objects {
		if o["kind"] == "VirtualMachineInstance" && o["metadata"].(map[string]any)["name"] == "vm1" {
			event = map[string]any{
				"kind": "Event", "apiVersion": "v1", "metadata": map[string]any{"name": "e", "namespace": "tenant"}, "reason": "FailedCreate",
				"involvedObject": map[string]any{"kind": "VirtualMachineInstance", "name": "vm1", "uid": o["metadata"].(map[string]any)["uid"]},
				"lastTimestamp":  "2099-01-01T00:00:00Z",
				"message":        `Error creating pod: pods "virt-launcher-vm1-x" is forbidden: exceeded quota: q, requested: limits.memory=3000000000, used: limits.memory=2773714688, limited: limits.memory=2773714688`,
			}
		}
	}
	server.objects = append(server.objects, event)
	require.Contains(t, server.run(t, "explain", "-n", "tenant").stdout, "3000000000 bytes")
	require.Contains(t, runWith(t, contents(t, "testdata/list.yaml")+"---\n"+mustJSON(t, event), "explain", "-f", "-").stdout, "3000000000 bytes")
}

func TestClusterErrors(t *testing.T) {
	server := newServer(t)
	server.forbidden["pods"] = true
	require.Equal(t, result{code: exitError, stderr: "error: cannot list pods of namespace team-a: pods is forbidden\n"}, server.run(t))
	require.Equal(t, result{code: exitError, stderr: "error: cannot list pods: pods is forbidden\n"}, server.run(t, "-A"))
	got := server.run(t, "--context", "nowhere")
	require.Equal(t, exitError, got.code)
	require.Contains(t, got.stderr, "context was not found for specified context: nowhere")
	require.Empty(t, got.stdout)
	require.Contains(t, server.run(t, "--lease", "x").stderr, "error: ")
}
