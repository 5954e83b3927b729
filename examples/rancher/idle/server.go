package main

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A kind is one of downstream clusters.
type kind struct {
	path    string
	name    string
	watches int // that it is asked for
}

var kinds = []kind{
	{"none", "no ledger and no KubeVirt", 0},
	{"ledger", "a ledger", 1},
	{"kubevirt", "KubeVirt and no ledger", 5},
}

// Stats are what the clusters were asked for.
type stats struct {
	Asked   int // clusters that were asked whether they have a ledger
	Watches int // that are open
}

// Servers are the API servers of all clusters of all kinds. Their paths begin with the kind and
// the number.
type servers struct {
	namespaces int
	mu         sync.Mutex
	stats
	asked map[string]bool // by cluster
}

// serveAll serves until standard input ends.
func serveAll(namespaces int) error {
	api := httptest.NewUnstartedServer(&servers{namespaces: namespaces, asked: map[string]bool{}})
	api.EnableHTTP2 = true
	api.StartTLS()
	defer api.Close()
	fmt.Println(api.URL, strconv.Quote(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))))
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(0) // whatever watches there are
	return nil
}

// spawn starts them in another process, and returns how to reach that.
func spawn() (*rest.Config, func(), error) {
	child := exec.Command(os.Args[0], append(os.Args[1:], "-serve")...)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := child.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() { _ = in.Close(); _ = child.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, err
	}
	url, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
	certificate, err := strconv.Unquote(quoted)
	return &rest.Config{Host: url, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(certificate)}}, stop, err
}

// ServeHTTP implements http.Handler.
func (s *servers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/stats" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Asked = len(s.asked)
		_ = json.NewEncoder(w).Encode(s.stats)
		return
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) < 3 {
		http.NotFound(w, r)
		return
	}
	cluster, path := parts[0]+"/"+parts[1], parts[2]
	switch {
	case path == "api/v1/namespaces/headroom":
		s.mu.Lock()
		s.asked[cluster] = true
		s.mu.Unlock()
		s.answer(w, parts[0] == "ledger", namespace("headroom"))
	case path == "apis/kubevirt.io/v1":
		s.answer(w, parts[0] == "kubevirt", &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "kubevirt.io/v1"})
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, path)
	default:
		s.answer(w, true, list(path, s.objects(path)))
	}
}

// answer sends object, or that it is not found.
func (s *servers) answer(w http.ResponseWriter, found bool, object any) {
	if !found {
		w.WriteHeader(http.StatusNotFound)
		object = &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound,
		}
	}
	_ = json.NewEncoder(w).Encode(object)
}

// watch sends what there is, if it is asked for, and then nothing.
func (s *servers) watch(w http.ResponseWriter, r *http.Request, path string) {
	s.count(1)
	defer s.count(-1)
	frames := json.NewEncoder(w)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, object := range s.objects(path) {
			_ = frames.Encode(map[string]any{"type": "ADDED", "object": object})
		}
		end := map[string]any{"resourceVersion": "1", "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
		kind, version := kindOf(path)
		_ = frames.Encode(map[string]any{"type": "BOOKMARK", "object": map[string]any{"kind": kind, "apiVersion": version, "metadata": end}})
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func (s *servers) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Watches += n
}

// objects are those of a cluster's path.
func (s *servers) objects(path string) (objects []any) {
	for i := range s.namespaces {
		name := fmt.Sprintf("tenant-%d", i)
		switch path[strings.LastIndex(path, "/")+1:] {
		case "resourcequotas":
			objects = append(objects, quota(name))
		case "namespaces":
			objects = append(objects, namespace(name))
		}
	}
	return objects
}

// kindOf returns the kind of the objects of a path, and their version.
func kindOf(path string) (kind, version string) {
	kinds := map[string]string{
		"resourcequotas": "ResourceQuota", "namespaces": "Namespace", "configmaps": "ConfigMap", "events": "Event", "limitranges": "LimitRange",
	}
	if kind := kinds[path[strings.LastIndex(path, "/")+1:]]; kind != "" {
		return kind, "v1"
	}
	return "PartialObjectMetadata", "meta.k8s.io/v1"
}

func list(path string, objects []any) any {
	kind, version := kindOf(path)
	if objects == nil {
		objects = []any{}
	}
	return map[string]any{"kind": kind + "List", "apiVersion": version, "metadata": map[string]string{"resourceVersion": "1"}, "items": objects}
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "75cd4622-b431-4d90-9d17-49557d000000", ResourceVersion: "1"},
	}
}

func quota(namespace string) *corev1.ResourceQuota {
	static := corev1.ResourceList{"limits.cpu": *resource.NewQuantity(30, resource.DecimalSI), "limits.memory": *resource.NewQuantity(60<<30, resource.BinarySI)}
	return &corev1.ResourceQuota{
		TypeMeta: metav1.TypeMeta{Kind: "ResourceQuota", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "default-gn4d2", UID: "75cd4622-b431-4d90-9d17-49557d000001", ResourceVersion: "1",
			Labels: map[string]string{"resourcequota.management.cattle.io/default-resource-quota": "true"},
		},
		Spec:   corev1.ResourceQuotaSpec{Hard: static},
		Status: corev1.ResourceQuotaStatus{Hard: static, Used: static},
	}
}
