package proof

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rancher/lasso/pkg/cache"
	"github.com/rancher/lasso/pkg/client"
	"github.com/rancher/lasso/pkg/controller"
	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// An agentConfig is what an agent works with.
type agentConfig struct {
	REST *rest.Config // Rancher's account
	// WriteAs is the account that it impersonates when it writes quotas. Since the write
	// lock that is another account than its own.
	WriteAs  rest.ImpersonationConfig
	Projects *model.Projects
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

// An agent is the part of Rancher that is responsible for one cluster, from its start to
// its loss.
type agent struct {
	stop   context.CancelFunc
	shim   *rancher.Shim // nil if there is none
	synced atomic.Int64  // how many times it has reconciled a namespace without an error
}

// startAgent starts an agent. It lists everything anew, and reconciles every namespace.
func startAgent(config agentConfig) (*agent, error) {
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
	namespaces, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	impersonated := rest.CopyConfig(restConfig)
	impersonated.Impersonate = config.WriteAs
	quotas, err := kubernetes.NewForConfig(impersonated)
	if err != nil {
		return nil, err
	}
	v1 := factory.Core().V1()
	ctx, stop := context.WithCancel(context.Background())
	a := &agent{stop: stop}
	a.register(ctx, v1.Namespace(), config.Latency, &model.Controller{
		Namespaces:     namespaces.CoreV1(),
		Quotas:         quotas.CoreV1(),
		NamespaceCache: v1.Namespace().Informer().GetIndexer(),
		QuotaCache:     v1.ResourceQuota().Informer().GetIndexer(),
		Projects:       config.Projects,
		Now:            time.Now,
	})
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

// register reconciles on every event of a namespace and of a project. Events are late by latency.
func (a *agent) register(ctx context.Context, namespaces wranglercorev1.NamespaceController, latency time.Duration, c *model.Controller) {
	namespaces.OnChange(ctx, "resourceQuotaSyncController", func(name string, ns *corev1.Namespace) (*corev1.Namespace, error) {
		if ns == nil {
			return nil, nil
		}
		time.Sleep(latency)
		err := c.Sync(ctx, name)
		if err == nil {
			a.synced.Add(1)
		}
		return nil, err
	})
	c.Projects.OnChange(func(id string) {
		if ctx.Err() != nil {
			return
		}
		found, err := c.Of(id)
		if err != nil {
			return
		}
		for _, ns := range found {
			namespaces.Enqueue(ns.Name)
		}
	})
}

// shim starts what the change to Rancher starts.
func (c agentConfig) shim(ctx context.Context) (*rancher.Shim, error) {
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
func (c agentConfig) far(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return distant{next, c.Latency} })
	return config
}

// Stop loses the agent. Requests that are under way are still sent.
func (a *agent) Stop() {
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
