package model

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/rancher/lasso/pkg/cache"
	"github.com/rancher/lasso/pkg/client"
	"github.com/rancher/lasso/pkg/controller"
	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/examples/rancher/namespace"
)

// A Config is what an [Agent] works with.
type Config struct {
	REST *rest.Config // whom Rancher is for the API server
	// WriteAs is whom it impersonates when it writes quotas. Since the lock that is another
	// account than its own.
	WriteAs  rest.ImpersonationConfig
	Projects *Projects
	// Latency is how far away the API server is: how long each request takes more than it
	// would, and each event.
	Latency time.Duration
	// Shim puts the shim between the controller and the API server, and the applier beside
	// it. Off is its kill switch; nil: it is on.
	Shim bool
	Off  func() bool
}

// An Agent is the part of Rancher that looks after one cluster, from its start to its
// loss.
type Agent struct {
	controller *Controller
	stop       context.CancelFunc
	work       sync.WaitGroup
}

// Start starts an agent. It lists everything anew, and looks at every namespace.
func Start(config Config) (*Agent, error) {
	restConfig := rest.CopyConfig(config.REST)
	restConfig.QPS = -1
	restConfig.Wrap(func(next http.RoundTripper) http.RoundTripper { return distant{next, config.Latency} })
	clients, err := client.NewSharedClientFactory(restConfig, &client.SharedClientFactoryOptions{Scheme: scheme.Scheme})
	if err != nil {
		return nil, err
	}
	controllers := controller.NewSharedControllerFactory(cache.NewSharedCachedFactory(clients, nil), nil)
	factory, err := core.NewFactoryFromConfigWithOptions(restConfig, &generic.FactoryOptions{SharedControllerFactory: controllers})
	if err != nil {
		return nil, err
	}
	clientset, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	var quotas *namespace.Quotas
	if config.Shim {
		if quotas, err = namespace.NewQuotas(clientset, config.Off); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	v1 := factory.Core().V1()
	decorated := quotas.Decorate(v1.ResourceQuota())
	writer, err := decorated.WithImpersonation(config.WriteAs)
	if err != nil {
		stop()
		return nil, err
	}
	a := &Agent{stop: stop, controller: &Controller{
		Namespaces: v1.Namespace(),
		Quotas:     writer,
		QuotaCache: decorated.Cache(),
		Projects:   config.Projects,
		Latency:    config.Latency,
	}}
	a.controller.Register(ctx)
	const workers = 5
	if err := controllers.Start(ctx, workers); err != nil {
		stop()
		return nil, err
	}
	if quotas != nil {
		a.work.Add(1)
		go func() {
			defer a.work.Done()
			if err := quotas.Run(ctx, decorated, writer); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "The applier has ended")
			}
		}()
	}
	return a, nil
}

// Looked returns how often the agent has looked at a namespace, and done what it had to.
func (a *Agent) Looked() int64 { return a.controller.looked.Load() }

// Stop loses the agent. What it is about to send is still sent.
func (a *Agent) Stop() {
	a.stop()
	a.work.Wait()
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
