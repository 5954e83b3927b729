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
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
)

const (
	// pace is how much faster than the recording a migration is played.
	pace = 4
	// sourceLife is how long a source pod lives after the migration is over.
	sourceLife = time.Second
	// largest is more than any namespace has machines.
	largest = 1 << 10
)

func main() {
	var s size
	flag.IntVar(&s.namespaces, "namespaces", 10000, "how many namespaces there are, each with a quota that its machines fill")
	flag.IntVar(&s.machines, "machines", 5, "how many virtual machines each of them has")
	flag.IntVar(&s.large, "large", 100, "how many the first one has")
	flag.IntVar(&s.kept, "kept", 5, "how many migrations that are over KubeVirt keeps of each machine")
	migrating := flag.Int("migrating", 1000, "in how many namespaces a machine migrates")
	parallel := flag.Int("parallel", 5, "how many migrate at the same time")
	file := flag.String("recording", "../../migration/testdata/recordings/basic.jsonl", "which migration is played")
	serve := flag.Bool("serve", false, "be the API server")
	flag.Parse()
	p, err := readPattern(*file)
	switch {
	case err != nil:
	case *serve:
		api := start(newServer(p, s))
		defer api.Close()
		fmt.Println(api.URL, strconv.Quote(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))))
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the parent has ended
		return
	default:
		err = run(s, min(*migrating, s.namespaces/2-1), *parallel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// start starts s in this process.
func start(s *server) *httptest.Server {
	api := httptest.NewUnstartedServer(s)
	api.EnableHTTP2 = true
	api.StartTLS()
	return api
}

// spawn starts a server in another process, and returns how to reach it.
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

// ask calls the server for something that is not of the API.
func (b *bench) ask(path string) (s stats, err error) {
	answer, err := b.client.Get(b.api.Host + path)
	if err != nil {
		return s, err
	}
	defer func() { _ = answer.Body.Close() }()
	if path == "/stats" {
		err = json.NewDecoder(answer.Body).Decode(&s)
	}
	return s, err
}

// Counted is what a server has counted while migrations were played.
type counted struct {
	stats
	spent time.Duration // CPU time of this process
}

// of returns how many requests with these verbs there were.
func (c counted) of(verbs ...string) (n float64) {
	for name, times := range c.Requests {
		if verb, _, _ := strings.Cut(name, " "); slices.Contains(verbs, verb) {
			n += float64(times)
		}
	}
	return n
}

// migrate migrates a machine in each of n namespaces, so many at a time.
func (b *bench) migrate(from, n, machine, parallel int) (c counted, err error) {
	before, err := b.ask("/stats")
	if err != nil {
		return c, err
	}
	started := cpu()
	for begun, over := 0, 0; over < n; over = c.Over - before.Over {
		if more := min(n-begun, parallel-begun+over); more > 0 {
			if _, err := b.ask(fmt.Sprintf("/migrate?from=%d&n=%d&machine=%d", from+begun, more, machine)); err != nil {
				return c, err
			}
			begun += more
		}
		time.Sleep(20 * time.Millisecond)
		if c.stats, err = b.ask("/stats"); err != nil {
			return c, err
		}
	}
	c.spent = cpu() - started
	for name, times := range before.Requests {
		c.Requests[name] -= times
	}
	c.Delays = c.Delays[len(before.Delays):]
	c.Over, c.Refused = c.Over-before.Over, c.Refused-before.Refused
	slices.Sort(c.Delays)
	return c, nil
}

func run(s size, migrating, parallel int) error {
	fmt.Printf("%d namespaces, %d virtual machines\n\n", s.namespaces, s.namespaces*s.machines)
	api, stop, err := spawn()
	if err != nil {
		return err
	}
	defer stop()
	b, err := newBench(api, migrating)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle, began := heap(), cpu()
	if err := b.Start(ctx); err != nil {
		return err
	}
	row("cold start: CPU", "%.2f s", (cpu() - began).Seconds())
	memory := func() {
		held := float64(heap() - idle)
		row("memory of the caches", "%.1f MB", held/1e6)
		row("    for each machine", "%.2f KB", held/1e3/float64(s.namespaces*s.machines))
		row("RSS of the process", "%.0f MB", rss())
	}
	memory()
	began = cpu()
	go b.Work(ctx)
	for int(b.reconciled.Load()) < s.namespaces {
		time.Sleep(100 * time.Millisecond)
	}
	row("to reconcile every namespace once: CPU", "%.2f s", (cpu() - began).Seconds())
	began = cpu()
	const times = 10000
	for range times {
		if _, err := b.Reconcile(ctx, namespaceName(0)); err != nil {
			return err
		}
	}
	row(fmt.Sprintf("one reconcile of a namespace with %d machines", s.large), "%.1f µs", float64((cpu()-began).Microseconds())/times)

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
		if err != nil {
			return err
		}
		fmt.Printf("\n%s\n", p.what)
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
		row("goroutines", "%d", runtime.NumGoroutine())
	}
	return nil
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

// heap is what is in use after a garbage collection, in bytes.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// rss is what the operating system counts, in MB; 0 if it does not say.
func rss() float64 {
	var pages, resident float64
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(text), &pages, &resident)
	}
	if err != nil {
		return 0
	}
	return resident * float64(os.Getpagesize()) / 1e6
}

// cpu is the time that this process has had a core for itself, so that it does not matter
// what else the machine does.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
