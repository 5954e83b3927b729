package model

import (
	"context"
	"net/http"
	"time"

	"github.com/rancher/lasso/pkg/cache"
	"github.com/rancher/lasso/pkg/client"
	"github.com/rancher/lasso/pkg/controller"
	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// A Config is what an [Agent] works with.
type Config struct {
	REST *rest.Config // Rancher's account
	// WriteAs is the account that it impersonates when it writes quotas. Since the write
	// lock that is another account than its own.
	WriteAs  rest.ImpersonationConfig
	Projects *Projects
	// Latency is how far away the API server is: it is added to each request and to each
	// event.
	Latency time.Duration

	// Headroom starts the shim beside the controller, with its own account so that the
	// audit log shows which of the two wrote. If nil, there is no shim.
	Headroom *rest.Config
	// Disabled is the shim's kill switch. If nil, it is on.
	Disabled func() bool
	// Own has the shim find no ledger, so that it enforces the cluster's own migrations.
	Own bool
}

// An Agent is the part of Rancher that is responsible for one cluster, from its start to
// its loss.
type Agent struct {
	controller *Controller
	stop       context.CancelFunc
	shim       *rancher.Shim // nil if there is none
}

// Start starts an agent. It lists everything anew, and reconciles every namespace.
func Start(config Config) (*Agent, error) {
	restConfig := config.far(config.REST)
	clients, err := client.NewSharedClientFactory(restConfig, &client.SharedClientFactoryOptions{Scheme: scheme.Scheme})
	if err != nil {
		return nil, err
	}
	controllers := controller.NewSharedControllerFactory(cache.NewSharedCachedFactory(clients, nil), nil)
	factory, err := core.NewFactoryFromConfigWithOptions(restConfig, &generic.FactoryOptions{SharedControllerFactory: controllers})
	if err != nil {
		return nil, err
	}
	v1 := factory.Core().V1()
	writer, err := v1.ResourceQuota().WithImpersonation(config.WriteAs)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &Agent{stop: stop, controller: &Controller{
		Namespaces: v1.Namespace(),
		Quotas:     writer,
		QuotaCache: v1.ResourceQuota().Cache(),
		Projects:   config.Projects,
		Latency:    config.Latency,
	}}
	a.controller.Register(ctx)
	if a.shim, err = config.shim(ctx); err != nil {
		stop()
		return nil, err
	}
	const workers = 5
	if err := controllers.Start(ctx, workers); err != nil {
		a.Stop()
		return nil, err
	}
	return a, nil
}

// shim starts what the change to Rancher starts.
func (c Config) shim(ctx context.Context) (*rancher.Shim, error) {
	if c.Headroom == nil {
		return nil, nil
	}
	clientset, err := kubernetes.NewForConfig(c.far(c.Headroom))
	if err != nil {
		return nil, err
	}
	shim := rancher.Config{Client: clientset, Now: time.Now, Disabled: c.Disabled}
	if c.Own {
		shim.Namespace = "no-ledger"
		shim.Own = func(ctx context.Context) error {
			return migration.Run(ctx, c.far(c.Headroom), migration.Options{DisabledFor: rancher.HarvesterSkips, Disabled: c.Disabled})
		}
	}
	return rancher.Start(ctx, shim)
}

// far returns config for an API server that is Latency away.
func (c Config) far(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return distant{next, c.Latency} })
	return config
}

// Synced returns how many times the agent has reconciled a namespace without an error.
func (a *Agent) Synced() int64 { return a.controller.synced.Load() }

// Stop loses the agent. Requests that are under way are still sent.
func (a *Agent) Stop() {
	a.stop()
	if a.shim != nil {
		<-a.shim.Done()
	}
}

// distant is an API server that is some way off.
type distant struct {
	http.RoundTripper
	latency time.Duration
}

func (d distant) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-time.After(d.latency):
		return d.RoundTripper.RoundTrip(request)
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
}
