package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	_ "net/http/pprof" // in http.DefaultServeMux
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"

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
