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
	"runtime"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/examples/rancher/change"
)

func main() {
	clusters := flag.Int("clusters", 2000, "downstream clusters in one process")
	namespaces := flag.Int("namespaces", 20, "namespaces in each, each with a quota")
	serve := flag.Bool("serve", false, "be the API servers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	klog.SetLogger(klog.Logger{}) // two thousand shims say what they enforce
	var err error
	if *serve {
		err = serveAll(*namespaces)
	} else {
		err = run(ctx, *clusters)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run measures each kind of cluster, and prints a table.
func run(ctx context.Context, clusters int) error {
	fmt.Printf("%d idle clusters in one process\n\n", clusters)
	fmt.Println("| each cluster has | goroutines | heap | RSS | left after the end |")
	fmt.Println("|---|---|---|---|---|")
	for _, k := range kinds {
		api, stop, err := spawn()
		if err != nil {
			return err
		}
		err = k.measure(ctx, api, clusters)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// measure starts the change for each cluster of this kind, and prints what that costs.
func (k kind) measure(ctx context.Context, api *rest.Config, clusters int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	all := make([]*change.UserContext, clusters)
	for i := range all {
		config := rest.CopyConfig(api)
		config.Host += fmt.Sprintf("/%s/%d", k.path, i)
		config.Dial = (&net.Dialer{}).DialContext // so that nothing is shared, as with a tunnel
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		if _, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err != nil { // Rancher has used it before
			return err
		}
		all[i] = &change.UserContext{RESTConfig: *config, K8sClient: client}
	}
	before := now()
	for _, cluster := range all {
		if err := change.RegisterDeferred(ctx, cluster); err != nil {
			return err
		}
	}
	if err := k.await(ctx, api, clusters); err != nil {
		return err
	}
	during := now()
	stop()
	left := now()
	// An idle connection is closed after 90 seconds.
	for end := time.Now().Add(2 * time.Minute); left.goroutines > before.goroutines+10 && time.Now().Before(end); left = now() {
		time.Sleep(time.Second)
	}
	n := float64(clusters)
	fmt.Printf("| %s | %.1f | %.0f KB | %.0f KB | %d goroutines |\n", k.name, float64(during.goroutines-before.goroutines)/n,
		(during.heap-before.heap)/n/1e3, (during.rss-before.rss)/n/1e3, left.goroutines-before.goroutines)
	return nil
}

// await waits until all clusters have been asked for what they are asked for at the start, and
// nothing is under way any more.
func (k kind) await(ctx context.Context, api *rest.Config, clusters int) error {
	client, err := rest.HTTPClientFor(api)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var got stats
	for got.Asked < clusters || got.Watches != k.watches*clusters {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, api.Host+"/stats", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		err = json.NewDecoder(response.Body).Decode(&got)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		time.Sleep(time.Second)
	}
	time.Sleep(10 * time.Second)
	return nil
}

// A reading is what this process uses.
type reading struct {
	goroutines int
	heap, rss  float64 // in bytes
}

func now() reading {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	r := reading{goroutines: runtime.NumGoroutine(), heap: float64(stats.HeapAlloc)}
	var pages float64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(text), &pages, &r.rss)
	}
	r.rss *= float64(os.Getpagesize())
	return r
}
