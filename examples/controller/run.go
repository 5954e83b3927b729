package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	_ "net/http/pprof" // in http.DefaultServeMux
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	headroom "github.com/vmquota/headroom/examples/controller/metrics"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// run is the controller, until ctx is done.
func run(ctx context.Context, o options) error {
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	m := newMetrics()
	config.QPS, config.Burst, config.UserAgent = o.qps, o.burst, migration.Component
	config.Wrap(m.counted)
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	// The Lease has a client of its own, so that it is renewed however busy the other is.
	leases, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "lease"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := newController(o, clients, leases, m)
	if err != nil {
		return err
	}
	return c.run(ctx, cancel)
}

// restConfig is that of the file, of $KUBECONFIG, or of the service account of the pod.
func restConfig(path string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster: %w", err)
	}
	return config, nil
}

// A controller is one replica.
type controller struct {
	options options
	leases  kubernetes.Interface
	metrics *metrics
	limits  *migration.Controller
	synced  func() error // of limits
}

// optionsOf returns what the flags say of a migration.Controller.
func optionsOf(o options, m *metrics) migration.Options {
	return migration.Options{
		Policy:     func(string) quota.Policy { return o.policy },
		Disabled:   func() bool { return o.disabled },
		Guard:      o.guard,
		Owns:       o.shard.has,
		Metrics:    m,
		Reconciled: m.Reconciled,
		Nudged:     m.Nudged,
		Workers:    o.workers,
		Resync:     o.resync,
		DrainTime:  o.drainTime,
	}
}

func newController(o options, clients migration.Clients, leases kubernetes.Interface, m *metrics) (*controller, error) {
	limits, err := migration.NewController(clients, optionsOf(o, m))
	if err != nil {
		return nil, err
	}
	return &controller{options: o, leases: leases, metrics: m, limits: limits, synced: limits.Synced}, nil
}

// run is the replica, until ctx is done. Failed ends it with an error.
func (c *controller) run(ctx context.Context, failed context.CancelCauseFunc) error {
	watchdog := leaderelection.NewLeaderHealthzAdaptor(c.options.renewDeadline)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	if err := errors.Join(
		serve(serving, c.options.healthAddress, health(c.synced, watchdog), failed),
		serve(serving, c.options.metricsAddress, c.metrics.handler(), failed),
		serve(serving, c.options.pprofAddress, http.DefaultServeMux, failed),
	); err != nil {
		return err
	}
	// A replica whose caches cannot sync does not run for the Lease.
	if err := c.limits.Start(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	work := func(ctx context.Context) {
		defer c.giveUp(ctx, failed)()
		c.work(ctx)
	}
	if err := lead(ctx, c.leases, c.options, watchdog, work); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// cachesPeriod is how often a leader looks whether its caches are up to date.
const cachesPeriod = time.Second

// giveUp ends a leader that cannot read what it has to, so that the Lease is free for a
// replica that can. This one is started again, and runs for the Lease when its caches sync.
func (c *controller) giveUp(ctx context.Context, failed context.CancelCauseFunc) (stop func()) {
	if !c.options.leaderElect {
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go wait.UntilWithContext(ctx, func(context.Context) {
		if err := c.synced(); err != nil {
			failed(fmt.Errorf("no longer fit to lead: %w", err))
		}
	}, cachesPeriod)
	return stop
}

// work is what the leader does until ctx is done.
func (c *controller) work(ctx context.Context) {
	klog.FromContext(ctx).Info("Working", "shard", c.options.shard.index, "shards", c.options.shard.count)
	c.metrics.leader.Set(1)
	defer c.metrics.leader.Set(0)
	defer c.metrics.Reset()
	c.limits.Work(ctx)
}

// errLost says that another replica may lead now.
var errLost = errors.New("the Lease could not be renewed in time")

// lead calls work as soon as this replica has the Lease. When ctx is done, the Lease is
// given back after work has returned, so that another replica takes over at once, and
// never two of them write. If the Lease is lost, the context of work ends, and the error
// is errLost: the process should end.
func lead(ctx context.Context, client kubernetes.Interface, o options, watchdog *leaderelection.HealthzAdaptor, work func(ctx context.Context)) error {
	if !o.leaderElect {
		work(ctx)
		return nil
	}
	// The Lease outlives ctx by as long as work needs.
	hold, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	worked := make(chan struct{})
	started := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.namespace, Name: o.shard.lease(o.leaseName)},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: o.identity},
		},
		Name:            o.leaseName,
		LeaseDuration:   o.leaseDuration,
		RenewDeadline:   o.renewDeadline,
		RetryPeriod:     o.retryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        watchdog,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(started)
				defer close(worked)
				klog.FromContext(ctx).Info("Leading", "identity", o.identity)
				both, stop := context.WithCancel(leading)
				defer stop()
				defer context.AfterFunc(ctx, stop)()
				work(both)
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				klog.FromContext(ctx).Info("There is a leader", "identity", identity)
			},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	watchdog.SetLeaderElection(elector)
	context.AfterFunc(ctx, func() {
		select {
		case <-started:
			<-worked
		default: // it does not lead, and will not
		}
		release()
	})
	elector.Run(hold)
	if ctx.Err() == nil {
		return errLost
	}
	return nil
}

// health answers the probes of the kubelet. A replica that waits for the Lease is ready
// too, as soon as its caches are full: it can take over at once.
func health(synced func() error, elector *leaderelection.HealthzAdaptor) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", answer(func(r *http.Request) error { return elector.Check(r) }))
	mux.HandleFunc("/readyz", answer(func(*http.Request) error { return synced() }))
	return mux
}

func answer(check func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// serve serves handler at address until ctx is done; an empty address is nowhere. What
// goes wrong later than at the beginning is told to failed.
func serve(ctx context.Context, address string, handler http.Handler, failed func(error)) error {
	if address == "" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	context.AfterFunc(ctx, func() {
		_ = server.Close() // the answers to probes and scrapes are not worth waiting for
	})
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return nil
}

// metrics are those of the library and those of this process.
type metrics struct {
	*headroom.Metrics
	registry *prometheus.Registry
	leader   prometheus.Gauge
	requests *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		Metrics:  headroom.New(nil),
		registry: prometheus.NewRegistry(),
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "headroom_leader", Help: "1 if this replica is the leader, 0 if it waits for the Lease."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rest_client_requests_total", Help: "Requests to the API server, by method and status code."}, []string{"method", "code"}),
	}
	m.registry.MustRegister(m.Metrics, m.leader, m.requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return m
}

// counted counts the requests to the API server.
func (m *metrics) counted(next http.RoundTripper) http.RoundTripper {
	return promhttp.InstrumentRoundTripperCounter(m.requests, next)
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry}))
	return mux
}

// A shard is one part of the namespaces of a cluster. A namespace belongs to the shard
// that FNV-1a (32 bit) of its name names, modulo their number, so that it needs no
// coordination, and each has about as many as any other.
type shard struct{ index, count uint32 }

// has reports whether namespace belongs to s.
func (s shard) has(namespace string) bool {
	if s.count <= 1 {
		return true
	}
	hash := fnv.New32a()
	hash.Write([]byte(namespace))
	return hash.Sum32()%s.count == s.index
}

// lease is the name of the Lease of this shard's replicas.
func (s shard) lease(name string) string {
	if s.count <= 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, s.index)
}
