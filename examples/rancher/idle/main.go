// Idle measures what the change to Rancher costs in Rancher's process for each downstream
// cluster in which nothing migrates. The clusters are API servers in another process, each
// reached over a TLS connection of its own, as through Rancher's tunnels.
//
//	go -C examples/rancher run ./idle
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/examples/rancher/change"
	"github.com/vmquota/headroom/examples/scale/server"
	"github.com/vmquota/headroom/examples/testbed/try"
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

func main() {
	clusters := flag.Int("clusters", 2000, "downstream clusters in one process")
	namespaces := flag.Int("namespaces", 20, "namespaces in each, each with a quota")
	recording := flag.String("recording", "../../migration/testdata/recordings/basic.jsonl", "which machines the quotas are for")
	serve := flag.Bool("serve", false, "be the API servers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	klog.SetLogger(klog.Logger{}) // two thousand shims say what they enforce
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	err := try.Run(ctx, logf, func(t try.T) {
		cluster := try.Must(server.New(*recording, server.Size{Namespaces: *namespaces, Machines: 5, Large: 5}))(t)
		if *serve {
			server.Serve(&clustersOf{Server: cluster, asked: map[string]bool{}})
			return
		}
		fmt.Printf("%d idle clusters in one process\n\n", *clusters)
		fmt.Println("| each cluster has | goroutines | heap | RSS | left after the end |")
		fmt.Println("|---|---|---|---|---|")
		for _, k := range kinds {
			k.measure(t, *clusters)
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is deferred that matters
	}
}

// clustersOf are the API servers of all clusters of all kinds, which have the same objects. Their
// paths begin with the kind and the number.
type clustersOf struct {
	*server.Server
	mu    sync.Mutex
	asked map[string]bool // the clusters that were asked whether they have a ledger
}

// ServeHTTP implements http.Handler.
func (c *clustersOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(r.URL.Path, "/", 4)
	switch {
	case r.URL.Path == "/asked":
		c.mu.Lock()
		defer c.mu.Unlock()
		fmt.Fprint(w, len(c.asked))
	case len(parts) < 4:
		c.Server.ServeHTTP(w, r)
	case parts[3] == "api/v1/namespaces/headroom":
		c.mu.Lock()
		c.asked[parts[1]+"/"+parts[2]] = true
		c.mu.Unlock()
		answer(w, parts[1] == "ledger", &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "headroom", UID: "75cd4622-b431-4d90-9d17-49557d000000", ResourceVersion: "1"},
		})
	case parts[3] == "apis/kubevirt.io/v1":
		answer(w, parts[1] == "kubevirt", &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "kubevirt.io/v1"})
	default:
		http.StripPrefix("/"+parts[1]+"/"+parts[2], c.Server).ServeHTTP(w, r)
	}
}

// answer sends object, or that it is not found.
func answer(w http.ResponseWriter, found bool, object any) {
	w.Header().Set("Content-Type", "application/json")
	if !found {
		w.WriteHeader(http.StatusNotFound)
		object = &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound,
		}
	}
	_ = json.NewEncoder(w).Encode(object)
}

// measure starts the change for each cluster of this kind, and prints what that costs.
func (k kind) measure(t try.T, clusters int) {
	api, end, err := server.Spawn()
	require.NoError(t, err)
	defer end()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all := make([]*change.UserContext, clusters)
	for i := range all {
		config := rest.CopyConfig(api)
		config.Host += fmt.Sprintf("/%s/%d", k.path, i)
		config.Dial = (&net.Dialer{}).DialContext // so that nothing is shared, as with a tunnel
		client := try.Must(kubernetes.NewForConfig(config))(t)
		try.Must(client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}))(t) // Rancher has used it before
		all[i] = &change.UserContext{RESTConfig: *config, K8sClient: client}
	}
	before := server.Used()
	for _, cluster := range all {
		require.NoError(t, change.RegisterDeferred(ctx, cluster))
	}
	k.await(t, api, clusters)
	during := server.Used()
	stop()
	left := server.Used()
	// An idle connection is closed after 90 seconds.
	for end := time.Now().Add(2 * time.Minute); left.Goroutines > before.Goroutines+10 && time.Now().Before(end); left = server.Used() {
		try.Sleep(t, time.Second)
	}
	n := float64(clusters)
	fmt.Printf("| %s | %.1f | %.0f KB | %.0f KB | %d goroutines |\n", k.name, float64(during.Goroutines-before.Goroutines)/n,
		(during.Heap-before.Heap)/n/1e3, (during.RSS-before.RSS)/n/1e3, left.Goroutines-before.Goroutines)
}

// await waits until all clusters have been asked for what they are asked for at the start, and
// nothing is under way any more.
func (k kind) await(t try.T, api *rest.Config, clusters int) {
	client := try.Must(rest.HTTPClientFor(api))(t)
	defer client.CloseIdleConnections()
	get := func(path string, into any) {
		response := try.Must(client.Get(api.Host + path))(t)
		defer func() { _ = response.Body.Close() }()
		require.NoError(t, json.NewDecoder(response.Body).Decode(into))
	}
	for asked, got := 0, (server.Stats{}); asked < clusters || got.Watches != k.watches*clusters; {
		try.Sleep(t, time.Second)
		get("/asked", &asked)
		get("/stats", &got)
	}
	try.Sleep(t, 10*time.Second)
}
