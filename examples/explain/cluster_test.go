package main

import (
	"bufio"
	"bytes"
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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	kubevirtv1 "kubevirt.io/api/core/v1"
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

const goodQuota = `apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: tenant}
spec: {hard: {limits.memory: 8Gi}}
status: {hard: {limits.memory: 8Gi}, used: {limits.memory: "0"}}
`

const pendingMigration = `apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {name: m1, namespace: tenant, uid: u1}
spec: {vmiName: vm1}
status: {phase: Pending}
`

const goodPod = `apiVersion: v1
kind: Pod
metadata: {name: p, labels: {kubevirt.io: virt-launcher}}
spec: {containers: [{name: c, resources: {limits: {cpu: 1}}}]}
`

// Each fault is an error that names the object and the field, and nothing else is printed.
func TestBadObjects(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"misspelt field":     {strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1), `ResourceQuota tenant/q: unknown field "spec.hardd"`},
		"stored by a server": {strings.Replace(strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1), "name: q", `name: q, resourceVersion: "7"`, 1), `ResourceQuota tenant/q: unknown field "spec.hardd"`},
		"misspelt in a VMIM": {strings.Replace(pendingMigration, "vmiName", "vmName", 1), `VirtualMachineInstanceMigration tenant/m1: unknown field "spec.vmName"`},
		"misspelt in a pod":  {strings.Replace(goodPod, "limits", "limit", 1), `Pod default/p: unknown field "spec.containers[0].resources.limit"`},
		"malformed quantity": {strings.Replace(goodQuota, "8Gi", "8Gx", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "8Gx" is not a quantity, as 500m and 2Gi are`},
		"malformed used":     {strings.Replace(goodQuota, `"0"`, "none", 1), `ResourceQuota tenant/q: status.used[limits.memory]: "none" is not a quantity, as 500m and 2Gi are`},
		"negative quantity":  {strings.Replace(goodQuota, "8Gi", "-8Gi", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "-8Gi" is negative`},
		"huge quantity":      {strings.Replace(goodQuota, "8Gi", "1e99999999", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "1e99999999" is out of range`},
		"tiny quantity":      {strings.Replace(goodPod, "cpu: 1", `cpu: "1e-99999999"`, 1), `Pod default/p: spec.containers[0].resources.limits.cpu: "1e-99999999" is out of range`},
		"list for an object": {strings.Replace(goodQuota, "{limits.memory: 8Gi}", "[limits.memory]", 1), `ResourceQuota tenant/q: spec.hard: array where map belongs`},
		"malformed in a pod": {strings.Replace(goodPod, "cpu: 1", "cpu: x", 1), `Pod default/p: spec.containers[0].resources.limits.cpu: "x" is not a quantity, as 500m and 2Gi are`},
		"wrong scalar":       {strings.Replace(goodPod, "spec: {", "spec: {priority: high, ", 1), `Pod default/p: spec.priority: string where int32 belongs`},
		"no name":            {strings.Replace(goodQuota, "name: q, ", "", 1), "ResourceQuota tenant: it has no name"},
		"twice, different":   {goodQuota + "---\n" + strings.Replace(goodQuota, "8Gi", "9Gi", 1), `ResourceQuota tenant/q: it was read twice, and differs`},
		"nothing to explain": {goodPod, "-: no ResourceQuota and no VirtualMachineInstanceMigration in it"},
		"of another group":   {strings.Replace(goodQuota, "v1", "example.com/v1", 1), "-: no ResourceQuota and no VirtualMachineInstanceMigration in it"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, test.want, test.content, "explain", "-f", "-") })
	}
}

// What is no Kubernetes object is an error if it was named, in the words of cli-runtime.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"cut.json": `{"kind": "List",`, "text.yaml": "hello\n", "nokind.yaml": "metadata: {name: q}\n", "broken.yaml": "a: b: c\n",
		"empty.yaml": "", "line.jsonl": `{"t":1,"type":"ADDED"}`, "unknown.jsonl": `{"t":1,"type":"ADDED","object":{"kind":"Node","apiVersion":"v1"}}`,
		"empty.jsonl": "", "missing.yaml": "",
	} {
		file := filepath.Join(dir, name)
		if name != "missing.yaml" {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		}
		got := runWith(t, "", "-f", file)
		require.Equal(t, exitError, got.code, name)
		require.Empty(t, got.stdout, name)
		require.Contains(t, got.stderr, name)
		require.Less(t, strings.Count(got.stderr, "\n"), 4, got.stderr)
	}
}

func TestBadRequests(t *testing.T) {
	basic := recordings + "basic.jsonl"
	for args, want := range map[string]string{
		"--nope":                        "unknown flag: --nope",
		"more":                          `unknown command "more" for "kubectl headroom"`,
		"-f x --context c":              "if any flags in the group [filename context] are set none of the others can be; [context filename] were all set",
		"-f testdata/list.yaml --at 1s": "--at is a moment of a recording, and testdata/list.yaml is none",
		"--at 1s":                       "--at is a moment of a recording: name one with -f",
		"-o svg":                        "-o svg draws a whole recording: name one with -f, and leave out --at",
		"-f testdata/list.yaml -o svg":  "testdata/list.yaml: -o svg draws a recording (.jsonl)",
		"-f testdata/list.yaml -n typo": "testdata/list.yaml: no ResourceQuota and no VirtualMachineInstanceMigration in it of namespace typo",
		"-f testdata/list.yaml --budget pods=1,limits.cpu=-1": `--budget: limits.cpu: "-1" is not an amount, as 500m and 2Gi are`,
		"-f testdata/list.yaml --budget foo=1":                `--budget: no ResourceQuota limits "foo", but limits.cpu and limits.memory`,
		"-f " + basic + " --at 8s":                            basic + ": --at 8s is not in it: it begins at 0s and ends at 7.482s",
		"-f " + basic + " -n typo":                            basic + ": nothing of namespace typo in it, but of basic-p8zd5",
		"-f " + basic + " -f x.yaml":                          basic + " is a recording: name it alone",
		"-f " + basic + " -o svg --resource pods":             basic + ": no ResourceQuota in it that limits what --resource names",
		"forecast -f x --parallel 0":                          "--parallel: 0 is less than 1",
	} {
		refused(t, want, "", strings.Fields(args)...)
	}
	for _, args := range []string{"-f x --budget 8Gi", "-f x --at soon", "forecast -f x --overhead many", "-f testdata/list.yaml -o png"} {
		require.Equal(t, exitError, runWith(t, "", strings.Fields(args)...).code, args)
	}
}

// A folder such as a must-gather has much in it that has nothing to do with quota.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	}
	write("version.json", `{"major": 1}`)
	write("notes.yaml", "a: b: c\n")
	write("pod.log", "hello\n")
	write("core/nodes/node1.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n")
	write("core/services.yaml", "apiVersion: v1\nkind: ServiceList\nitems: null\n")
	for i, item := range objectsOf(t, contents(t, "testdata/list.yaml")) {
		write("namespaces/tenant/"+string(rune('a'+i))+".json", mustJSON(t, item))
	}
	got := runWith(t, "", "explain", "-R", "-f", dir)
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Equal(t, body(contents(t, "testdata/list.golden")), body(got.stdout))
	require.Equal(t, "passed over 3 that have nothing to do with the quota of migrations: 1 Node, 2 no Kubernetes object\n", got.stderr)
	require.Equal(t, exitError, runWith(t, "", "explain", "-f", dir).code, "without -R only its own files")

	write("namespaces/tenant/z.yaml", strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1))
	refused(t, `ResourceQuota tenant/q: unknown field "spec.hardd"`, "", "explain", "-R", "-f", dir)
}

// A folder may have an object twice, read at different times.
func TestLaterStateCounts(t *testing.T) {
	at := func(version, limit string) string {
		return strings.NewReplacer("name: q", `name: q, resourceVersion: "`+version+`"`, "8Gi", limit).Replace(goodQuota)
	}
	for _, input := range []string{at("9", "7Gi") + "---\n" + at("10", "8Gi"), at("10", "8Gi") + "---\n" + at("9", "7Gi")} {
		require.Contains(t, runWith(t, input, "-f", "-").stdout, "8 GiB")
	}
}

// A newer server may know fields that this program does not.
func TestNewerFields(t *testing.T) {
	pod := strings.NewReplacer("name: p,", `name: p, namespace: tenant, resourceVersion: "7",`, "spec: {", "spec: {fromTheFuture: 1, ").Replace(goodPod)
	got := runWith(t, goodQuota+"---\n"+pod, "-f", "-")
	require.Equal(t, exitOK, got.code)
	require.Equal(t, "1 objects have fields that this version does not know, such as Pod tenant/p: unknown field \"spec.fromTheFuture\"\n", got.stderr)
}

func TestWhatIsMissing(t *testing.T) {
	got := runWith(t, goodQuota+"---\n"+pendingMigration, "-f", "-")
	require.Contains(t, got.stdout, "Migration m1 of VM vm1: over\n  VirtualMachineInstance vm1 does not exist, so there is nothing to move.\n")
	require.Contains(t, got.stdout, "There are no Pods of virtual machines of namespace tenant")
	got = runWith(t, goodQuota+"---\n"+strings.Replace(pendingMigration, "Pending", "Succeeded", 1), "-f", "-")
	require.Contains(t, got.stdout, "Over, and charged no more: m1 (Succeeded).")
	bare := strings.Replace(goodQuota, ", namespace: tenant", "", 1)
	require.Contains(t, runWith(t, bare, "-f", "-").stdout, "NAMESPACE default\n")
	require.Contains(t, runWith(t, bare, "-f", "-", "-n", "mine").stdout, "NAMESPACE mine\n")
}

// FuzzInput: whatever comes in, there is output or an error, never both.
func FuzzInput(f *testing.F) {
	f.Add(goodQuota + "---\n" + pendingMigration)
	f.Add(`{"kind":"PodList","apiVersion":"v1","items":[{}]}`)
	f.Add(`{"t":2,"type":"ADDED","object":{"kind":"ResourceQuota","apiVersion":"v1","spec":{"hard":{"pods":"1"}}}}`)
	f.Add("--- a\n---\n...\n%YAML 1.2\n---\n- 1\n")
	f.Fuzz(func(t *testing.T, stdin string) {
		for _, args := range []string{"explain -f -", "explain -f - -o json", "explain -f - -o svg", "forecast -f -"} {
			got := runWith(t, stdin, strings.Fields(args)...)
			require.Equal(t, got.code != exitError, got.stdout != "", got.stderr)
		}
	})
}

func TestCheckFields(t *testing.T) {
	for name, test := range map[string]struct {
		object metav1.Object
		json   string
		want   string
	}{
		"guest":      {&kubevirtv1.VirtualMachineInstance{}, `{"spec":{"domain":{"devices":{},"memory":{"guest":"much"}}}}`, `spec.domain.memory.guest: "much" is not a quantity, as 500m and 2Gi are`},
		"volume":     {&corev1.Pod{}, `{"spec":{"volumes":[{"name":"v","emptyDir":{"sizeLimit":"x"}}]}}`, `spec.volumes[0].emptyDir.sizeLimit: "x" is not a quantity, as 500m and 2Gi are`},
		"time":       {&corev1.Pod{}, `{"metadata":{"creationTimestamp":"now"}}`, `metadata.creationTimestamp: parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"`},
		"boolean":    {&corev1.ResourceQuota{}, `{"spec":{"hard":{"limits.cpu":true}}}`, `spec.hard[limits.cpu]: "true" is not a quantity, as 500m and 2Gi are`},
		"list":       {&corev1.ResourceQuota{}, `{"spec":[]}`, `spec: array where struct belongs`},
		"object":     {&corev1.ResourceQuota{}, `{"spec":{"scopes":{}}}`, `spec.scopes: object where slice belongs`},
		"number":     {&corev1.ResourceQuota{}, `{"spec":{"scopes":[7]}}`, `spec.scopes: number where string belongs`},
		"annotation": {&corev1.ResourceQuota{}, `{"metadata":{"annotations":3}}`, `metadata.annotations: number where map belongs`},
	} {
		t.Run(name, func(t *testing.T) {
			var tree map[string]any
			require.NoError(t, json.Unmarshal([]byte(test.json), &tree))
			require.EqualError(t, checkFields(test.object, tree, true), test.want)
			require.NoError(t, checkFields(test.object, tree, false))
		})
	}
}

// FuzzCheckFields compares with encoding/json alone: what is not refused can be read.
func FuzzCheckFields(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "rescued.jsonl"))
	require.NoError(f, err)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var raw struct{ Object json.RawMessage }
		require.NoError(f, json.Unmarshal(lines.Bytes(), &raw))
		f.Add([]byte(raw.Object))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var tree map[string]any
		if json.Unmarshal(data, &tree) != nil {
			return
		}
		for _, object := range []metav1.Object{&corev1.ResourceQuota{}, &corev1.Pod{}, &kubevirtv1.VirtualMachineInstance{}} {
			if checkFields(object, tree, true) == nil {
				require.NoError(t, json.Unmarshal(data, object))
			}
		}
	})
}
