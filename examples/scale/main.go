//go:build unix

// Scale prints what the controller costs in a large cluster of which a handful of machines
// migrate: memory, CPU time, requests, and the delay of an offer. It needs no cluster.
//
//	go -C examples/scale run . -namespaces 10000 -machines 5 -migrating 1000
//
// The controller has its own informers. The API server is a child process that plays, in as
// many namespaces as migrate, what a real API server and the real virt-controller did in a
// recording, over TLS and HTTP/2, without managed fields.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/scale/server"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
)

func main() {
	var s server.Size
	flag.IntVar(&s.Namespaces, "namespaces", 10000, "how many namespaces there are, each with a quota that its machines fill")
	flag.IntVar(&s.Machines, "machines", 5, "how many virtual machines each of them has")
	flag.IntVar(&s.Large, "large", 100, "how many the first one has")
	flag.IntVar(&s.Kept, "kept", 5, "how many migrations that are over KubeVirt keeps of each machine")
	migrating := flag.Int("migrating", 1000, "in how many namespaces a machine migrates")
	parallel := flag.Int("parallel", 5, "how many migrate at the same time")
	profile := flag.String("cpuprofile", "", "the file for a profile of what a migration costs")
	file := flag.String("recording", "../../migration/testdata/recordings/basic.jsonl", "which migration is played")
	serve := flag.Bool("serve", false, "be the API server")
	flag.Parse()
	api, err := server.New(*file, s)
	check(err)
	if *serve {
		server.Serve(api)
		return
	}
	run(s, min(*migrating, s.Namespaces/2-1), *parallel, *profile)
}

// check ends the program, and the API server with it, if err is not nil.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A bench is a controller that is measured.
type bench struct {
	*migration.Controller
	api        *rest.Config
	client     *http.Client
	reconciled atomic.Int64
}

// newBench returns one of a server.
func newBench(api *rest.Config, parallel int) (*bench, error) {
	b := &bench{api: api}
	clients, err := migration.ClientsFor(api)
	if err != nil {
		return nil, err
	}
	b.Controller, err = migration.NewController(clients, migration.Options{
		Parallel:   applier.Parallel{Cluster: parallel, Node: parallel}, // as KubeVirt is configured
		Reconciled: func(context.Context, migration.Report) { b.reconciled.Add(1) },
	})
	if err != nil {
		return nil, err
	}
	b.client, err = rest.HTTPClientFor(api)
	return b, err
}

// A cost is what some migrations have cost.
type cost struct {
	server.Stats
	spent      time.Duration // CPU time of this process
	reconciles int64
}

// of returns how many requests with these verbs there were.
func (c cost) of(verbs ...string) (n float64) {
	for name, times := range c.Requests {
		if verb, _, _ := strings.Cut(name, " "); slices.Contains(verbs, verb) {
			n += float64(times)
		}
	}
	return n
}

// migrate has the server migrate a machine in each of n namespaces, so many at a time.
func (b *bench) migrate(from, n, machine, parallel int) (c cost, err error) {
	began, reconciled := server.CPU(), b.reconciled.Load()
	answer, err := b.client.Get(fmt.Sprintf("%s/migrate?from=%d&n=%d&machine=%d&parallel=%d", b.api.Host, from, n, machine, parallel))
	if err != nil {
		return c, err
	}
	defer func() { _ = answer.Body.Close() }()
	err = json.NewDecoder(answer.Body).Decode(&c.Stats)
	c.spent, c.reconciles = server.CPU()-began, b.reconciled.Load()-reconciled
	return c, err
}

func run(s server.Size, migrating, parallel int, profile string) {
	fmt.Printf("%d namespaces, %d virtual machines\n\n", s.Namespaces, s.Namespaces*s.Machines)
	api, stop, err := server.Spawn()
	check(err)
	defer stop()
	b, err := newBench(api, migrating)
	check(err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle, began := server.Used().Heap, server.CPU()
	check(b.Start(ctx))
	row("cold start: CPU", "%.2f s", (server.CPU() - began).Seconds())
	memory := func() {
		used := server.Used()
		row("memory of the caches", "%.1f MB", (used.Heap-idle)/1e6)
		row("    for each machine", "%.2f KB", (used.Heap-idle)/1e3/float64(s.Namespaces*s.Machines))
		row("RSS of the process", "%.0f MB", used.RSS/1e6)
		row("goroutines", "%d", used.Goroutines)
	}
	memory()
	began = server.CPU()
	go b.Work(ctx)
	for int(b.reconciled.Load()) < s.Namespaces {
		time.Sleep(100 * time.Millisecond)
	}
	row("to reconcile every namespace once: CPU", "%.2f s", (server.CPU() - began).Seconds())
	began = server.CPU()
	const times = 10000
	for range times {
		_, err := b.Reconcile(ctx, server.NamespaceName(0))
		check(err)
	}
	row(fmt.Sprintf("one reconcile of a namespace with %d machines", s.Large), "%.1f µs", float64((server.CPU()-began).Microseconds())/times)

	if profile != "" {
		f, err := os.Create(profile)
		check(err)
		defer f.Close()
		check(pprof.StartCPUProfile(f))
		defer pprof.StopCPUProfile()
	}
	for _, p := range []struct {
		what                   string
		from, machine, atATime int
	}{
		{fmt.Sprintf("%d migrations, %d at a time", migrating, parallel), 1, 0, parallel},
		{fmt.Sprintf("%d migrations, %d at a time, where another was a minute ago at most", parallel, parallel), migrating - parallel + 1, 1, parallel},
		{fmt.Sprintf("%d migrations at once", migrating), 1 + migrating, 0, migrating},
	} {
		n := migrating
		if p.machine > 0 {
			n = parallel
		}
		c, err := b.migrate(p.from, n, p.machine, p.atATime)
		check(err)
		fmt.Printf("\n%s\n", p.what)
		row("reconciles for a migration", "%.1f", float64(c.reconciles)/float64(n))
		row("CPU for a migration", "%.2f ms", float64(c.spent.Microseconds())/1e3/float64(n))
		row("reads for a migration", "%.1f", c.of("GET")/float64(n))
		row("watches begun for a migration", "%.1f", c.of("WATCH")/float64(n))
		row("writes for a migration: of quotas", "%.1f", c.of("PUT")/float64(n))
		row("    events and nudges", "%.1f", c.of("POST", "PATCH")/float64(n))
		row("from the migration to the offer: p50", "%.1f ms", at(c.Delays, 50))
		row("    p90", "%.1f ms", at(c.Delays, 90))
		row("target pods that were refused first", "%d", c.Refused)
		row("quotas that are not as they were", "%d", c.Raised)
		memory()
	}
}

// at is a percentile of sorted delays, in milliseconds.
func at(delays []time.Duration, percent int) float64 {
	if len(delays) == 0 {
		return 0
	}
	return float64(delays[(len(delays)-1)*percent/100].Microseconds()) / 1e3
}

func row(what, format string, value any) {
	fmt.Printf("%-48s "+format+"\n", what, value)
}
