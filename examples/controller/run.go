package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
)

// component is what the controller calls itself in events and in the ledger.
const component = "headroom"

// run is the controller, until ctx is done.
func run(ctx context.Context, o options) error {
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	m := newMetrics(time.Now)
	config.QPS, config.Burst, config.UserAgent = o.qps, o.burst, component
	config.Wrap(m.counted)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	kubeVirt, err := dynamic.NewForConfig(config)
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
	c, err := newController(o, client, kubeVirt, leases, m)
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
	events  typedcorev1.EventsGetter
	metrics *metrics
	watched *watched
	ledger  *configmap.Ledger
	tenants *tenants
	told    record.EventBroadcaster
}

func newController(o options, client kubernetes.Interface, kubeVirt dynamic.Interface, leases kubernetes.Interface, m *metrics) (*controller, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, kubevirtv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	w, err := newWatched(client, kubeVirt, o.namespace, o.shard)
	if err != nil {
		return nil, err
	}
	c := &controller{options: o, leases: leases, events: client.CoreV1(), metrics: m, watched: w, told: record.NewBroadcaster()}
	c.ledger = configmap.New(client.CoreV1(), o.namespace, configmap.WithInformer(w.ledger), configmap.WithWriter(component))
	c.tenants, err = newTenants(surroundings{
		client: client,
		patch: func(ctx context.Context, namespace, name string, patch []byte) error {
			_, err := kubeVirt.Resource(vmims).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
		caches:   w.caches(),
		quotas:   migration.FromIndexer[corev1.ResourceQuota](w.quotas.GetIndexer()),
		ledger:   c.ledger,
		recorder: c.told.NewRecorder(scheme, corev1.EventSource{Component: component}),
		metrics:  m,
		now:      time.Now,
	}, o)
	return c, err
}

// run is the replica, until ctx is done. Failed ends it with an error.
func (c *controller) run(ctx context.Context, failed context.CancelCauseFunc) error {
	watchdog := leaderelection.NewLeaderHealthzAdaptor(c.options.renewDeadline)
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	if err := errors.Join(
		serve(serving, c.options.healthAddress, health(c.synced, watchdog), failed),
		serve(serving, c.options.metricsAddress, c.metrics.handler(), failed),
		serve(serving, c.options.pprofAddress, profiles(), failed),
	); err != nil {
		return err
	}
	c.told.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.events.Events("")})
	defer c.told.Shutdown()

	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var informers sync.WaitGroup
	defer informers.Wait()
	defer stopWatching()
	for _, informer := range c.watched.all() {
		informers.Add(1)
		go func() {
			defer informers.Done()
			informer.Run(watching.Done())
		}()
	}
	if err := lead(ctx, c.leases, c.options, watchdog, c.work); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// work is what the leader does until ctx is done.
func (c *controller) work(ctx context.Context) {
	logger := klog.FromContext(ctx)
	var synced []cache.InformerSynced
	for _, informer := range c.watched.all() {
		synced = append(synced, informer.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return
	}
	unhurried, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.options.drainTime, cancel) })()
	l, err := loop.New(loop.Config{
		// What has begun when ctx is done may end.
		Look: func(_ context.Context, namespace string) (time.Duration, error) {
			return c.tenants.keep(unhurried, namespace)
		},
		Namespaces: c.namespaces,
		Now:        time.Now,
		Urgent:     migration.InProgress,
		Resync:     c.options.resync,
		Workers:    c.options.workers,
	})
	if err != nil {
		logger.Error(err, "Nothing is looked at")
		return
	}
	if err := c.listen(l); err != nil {
		logger.Error(err, "The caches tell nothing")
		return
	}
	logger.Info("Working", "shard", c.options.shard.index, "shards", c.options.shard.count)
	c.metrics.leader.Set(1)
	defer c.metrics.leader.Set(0)
	defer c.metrics.stop()
	l.Run(ctx)
}

// listen has l told of what concerns the namespaces of this shard, beginning with what is
// there.
func (c *controller) listen(l *loop.Loop) error {
	if err := c.watched.listen(func(concerned func(object any) string) cache.ResourceEventHandler {
		return l.Handler(func(object any) string {
			if namespace := concerned(object); c.options.shard.has(namespace) {
				return namespace
			}
			return ""
		})
	}); err != nil {
		return err
	}
	_, err := c.ledger.OnChange(func(namespace string) {
		if c.options.shard.has(namespace) {
			l.Add(namespace)
		}
	})
	return err
}

// namespaces are those of this shard that have a quota.
func (c *controller) namespaces() ([]string, error) {
	all := c.watched.quotas.GetIndexer().ListIndexFuncValues(cache.NamespaceIndex)
	return slices.DeleteFunc(all, func(namespace string) bool { return !c.options.shard.has(namespace) }), nil
}

// synced says which caches are not full yet, nil if none.
func (c *controller) synced() error {
	missing := 0
	for _, informer := range c.watched.all() {
		if !informer.HasSynced() {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d caches are not full", missing, len(c.watched.all()))
	}
	return nil
}
