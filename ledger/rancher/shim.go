package rancher

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/quota"
)

// DefaultNamespace is the namespace of the ConfigMap ledger if Config.Namespace is empty.
const DefaultNamespace = "headroom"

// A Config is what a [Shim] works with.
type Config struct {
	// Client is a client of the downstream cluster. It is required.
	Client kubernetes.Interface
	// Now returns the time. It is required; time.Now is what most callers want.
	Now func() time.Time

	// Quotas is an informer of all ResourceQuotas in the cluster that the process has
	// anyway, with the index cache.NamespaceIndex. Its owner starts it, before or after
	// Start. If nil, the Shim runs one of its own.
	Quotas cache.SharedIndexInformer
	// Namespace is the namespace of the ConfigMap ledger. If empty, it is DefaultNamespace.
	Namespace string
	// Ledger takes the place of the ConfigMap ledger, which is not read then. Call
	// [Shim.Enqueue] when it changes. If nil, it is the ConfigMap ledger in Namespace.
	Ledger ledger.Ledger

	// The rest are those of applier.Config. If DisabledFor is nil, it is [HarvesterSkips].
	Policy      func(namespace string) quota.Policy
	Disabled    func() bool
	DisabledFor func(rq *corev1.ResourceQuota) bool
	Parallel    applier.Parallel
	Guard       bool
	Recorder    record.EventRecorder
	Metrics     applier.Metrics
}

// A Shim enforces the effective limits of one downstream cluster: it reconciles each
// namespace whose ledger or whose quotas have changed. [Start] makes one.
type Shim struct {
	stop context.CancelFunc
	done chan struct{}
	loop *loop.Loop

	quotas  cache.SharedIndexInformer
	own     []cache.SharedIndexInformer // the informers that the Shim runs itself
	synced  []cache.InformerSynced
	release func() // leaves an informer that is not its own
}

// Start starts a Shim, which runs until ctx is done or Stop is called. It does not wait for
// the cluster: while that is out of reach the informers retry. It returns an error, and
// starts nothing, if something required is missing or if Config.Quotas has been stopped.
//
// Nothing of a Shim outlives it, so a start that was cancelled can be repeated.
func Start(ctx context.Context, config Config) (*Shim, error) {
	if config.Client == nil || config.Now == nil {
		return nil, errors.New("a shim needs Client and Now")
	}
	ctx, stop := context.WithCancel(ctx)
	s := &Shim{stop: stop, done: make(chan struct{}), release: func() {}}
	if err := s.wire(config); err != nil {
		s.release()
		stop()
		return nil, err
	}
	go s.run(ctx)
	return s, nil
}

// Enqueue has the namespace reconciled. It returns at once.
func (s *Shim) Enqueue(namespace string) { s.loop.Add(namespace) }

// Done returns a channel that is closed when everything that Start started has ended.
func (s *Shim) Done() <-chan struct{} { return s.done }

// Stop stops the Shim, and returns when everything that Start started has ended. Limits
// that are raised are reset by kube-controller-manager.
func (s *Shim) Stop() {
	s.stop()
	<-s.done
}

// wire connects the informers, the ledger, the applier and the loop.
func (s *Shim) wire(config Config) error {
	if s.quotas = config.Quotas; s.quotas == nil {
		s.quotas = informers.NewSharedInformerFactory(config.Client, 0).Core().V1().ResourceQuotas().Informer()
		s.own = append(s.own, s.quotas)
	}
	migrations := config.Ledger
	if migrations == nil {
		namespace := config.Namespace
		if namespace == "" {
			namespace = DefaultNamespace
		}
		entries := informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithNamespace(namespace),
			informers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
		s.own = append(s.own, entries)
		s.synced = append(s.synced, entries.HasSynced)
		stored := configmap.New(config.Client.CoreV1(), namespace, configmap.WithInformer(entries))
		if _, err := stored.OnChange(s.Enqueue); err != nil {
			return err
		}
		migrations = stored
	}
	limits, err := s.applier(config, migrations)
	if err != nil {
		return err
	}
	if s.loop, err = loop.New(loop.Config{
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			result, err := limits.Apply(ctx, namespace)
			return result.RequeueAfter, applier.WorthRetry(err)
		},
		Namespaces: func() ([]string, error) {
			return s.quotas.GetIndexer().ListIndexFuncValues(cache.NamespaceIndex), nil
		},
	}); err != nil {
		return err
	}
	registration, err := s.quotas.AddEventHandler(s.loop.Handler(namespaceOf))
	if err != nil {
		return err
	}
	s.synced = append(s.synced, registration.HasSynced)
	if config.Quotas != nil {
		s.release = func() { _ = config.Quotas.RemoveEventHandler(registration) } // it fails only if the informer has ended too
	}
	return nil
}

func (s *Shim) applier(config Config, migrations ledger.Ledger) (*applier.Applier, error) {
	if config.DisabledFor == nil {
		config.DisabledFor = HarvesterSkips
	}
	return applier.New(applier.Config{
		Ledger:      migrations,
		Quotas:      config.Client.CoreV1(),
		List:        s.list,
		Now:         config.Now,
		Policy:      config.Policy,
		Disabled:    config.Disabled,
		DisabledFor: config.DisabledFor,
		Parallel:    config.Parallel,
		Guard:       config.Guard,
		Recorder:    config.Recorder,
		Metrics:     config.Metrics,
		Enqueue:     s.Enqueue,
	})
}

// list returns the quotas of a namespace from the cache.
func (s *Shim) list(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	objects, err := s.quotas.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, err
	}
	quotas := make([]*corev1.ResourceQuota, 0, len(objects))
	for _, object := range objects {
		if rq, ok := object.(*corev1.ResourceQuota); ok {
			quotas = append(quotas, rq)
		}
	}
	return quotas, nil
}

// run runs the Shim until ctx is done.
func (s *Shim) run(ctx context.Context) {
	defer close(s.done)
	defer s.stop()
	defer s.release()
	var watching sync.WaitGroup
	defer watching.Wait()
	for _, informer := range s.own {
		watching.Add(1)
		go func() {
			defer watching.Done()
			informer.RunWithContext(ctx)
		}()
	}
	if cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		s.loop.Run(ctx)
	}
}

// namespaceOf returns the namespace of an object from an informer.
func namespaceOf(object any) string {
	name, err := cache.DeletionHandlingObjectToName(object)
	if err != nil {
		return ""
	}
	return name.Namespace
}
