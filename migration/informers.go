package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeinformers "k8s.io/client-go/informers"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

var (
	migrationsResource = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	instancesResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
)

const (
	// idleTime is how long the objects of a namespace stay watched after its last
	// migration. To begin anew costs some milliseconds and a list of pods and of VMIs.
	idleTime = time.Minute
	// lingerTime is how long after the creation of a migration its losing pod may still be
	// charged when it is over and this process did not see it.
	lingerTime = time.Hour
	// awayLogPause is the least time between two log lines about a server that is away.
	awayLogPause = time.Minute
	crdPause     = 5 * time.Second
)

// Informers are a Controller's own. What does not migrate is not held. Quotas, namespaces,
// LimitRanges and refusals are watched in the whole cluster, because there are few or they are
// small, and of the migrations whether they are in progress; migrations, pods, VMIs and claims
// in the namespaces only that have one in flight, and what devices are charged for only where a
// pod has ResourceClaims from templates.
type informers struct {
	controller  *Controller
	progress    *progress
	quotas      cache.SharedIndexInformer
	namespaces  cache.SharedIndexInformer
	limitRanges cache.SharedIndexInformer
	refusals    cache.SharedIndexInformer
	refused     sync.Map // kinds that the API server does not let us watch, and that are optional

	mu       sync.Mutex
	ctx      context.Context // of Start; nil before
	watching map[string]*watched
	away     time.Time          // when it was last logged that the server is away
	failing  map[string]failure // by kind
	read     map[string]bool    // the kinds of tryToRead that were read
}

// watch makes the informers.
func (c *Controller) watch() error {
	core := kubeinformers.NewSharedInformerFactory(c.clients.Core, 0).Core().V1()
	refusals := kubeinformers.NewSharedInformerFactoryWithOptions(c.clients.Core, 0, kubeinformers.WithTweakListOptions(SelectRefusals))
	i := &informers{
		controller:  c,
		quotas:      core.ResourceQuotas().Informer(),
		namespaces:  core.Namespaces().Informer(),
		progress:    &progress{enqueue: c.Enqueue, now: c.options.Now},
		limitRanges: core.LimitRanges().Informer(),
		refusals:    refusals.Core().V1().Events().Informer(),
		watching:    map[string]*watched{},
		failing:     map[string]failure{},
		read:        map[string]bool{},
	}
	for kind, informer := range i.all() {
		if err := i.prepareInformer(kind, informer); err != nil {
			return err
		}
		if _, err := informer.AddEventHandler(c.Handler()); err != nil {
			return err
		}
	}
	c.informers = i
	c.quotas = FromIndexer[corev1.ResourceQuota](i.quotas.GetIndexer())
	c.caches = Caches{
		Migrations:  listWatched[kubevirtv1.VirtualMachineInstanceMigration](i, func(w *watched) *store { return w.migrations }),
		VMIs:        listWatched[kubevirtv1.VirtualMachineInstance](i, func(w *watched) *store { return w.vmis }),
		Pods:        listWatched[corev1.Pod](i, func(w *watched) *store { return w.pods }),
		PVCs:        listWatched[corev1.PersistentVolumeClaim](i, func(w *watched) *store { return w.claims }),
		LimitRanges: FromIndexer[corev1.LimitRange](i.limitRanges.GetIndexer()),
		Namespace:   FromStore(i.namespaces.GetStore()),

		ResourceClaims: listWatched[resourcev1.ResourceClaim](i, func(w *watched) *store { return w.resourceClaims }),
		DeviceClasses:  listWatched[resourcev1.DeviceClass](i, func(w *watched) *store { return w.deviceClasses }),
	}
	ofMachines := FromIndexer[corev1.Event](i.refusals.GetIndexer())
	ofPods := listWatched[corev1.Event](i, func(w *watched) *store { return w.claimRefusals })
	c.caches.Events = func(ctx context.Context, namespace string) ([]*corev1.Event, error) {
		events, err := ofMachines(ctx, namespace)
		more, otherErr := ofPods(ctx, namespace)
		return append(events, more...), errors.Join(err, otherErr)
	}
	return nil
}

// all returns the informers by the kind that they hold.
func (i *informers) all() map[string]cache.SharedIndexInformer {
	return map[string]cache.SharedIndexInformer{
		"ResourceQuotas": i.quotas, "Namespaces": i.namespaces,
		"LimitRanges": i.limitRanges, "Events": i.refusals,
	}
}

// prepareInformer has informer hold what the library reads only, and log in one line that the
// server is away.
func (i *informers) prepareInformer(kind string, informer cache.SharedIndexInformer) error {
	return errors.Join(informer.SetTransform(Trim), informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		i.tellAway(ctx, kind, err)
	}))
}

// tellAway records and logs that the server is away, or refuses to let a kind be read.
func (i *informers) tellAway(ctx context.Context, kind string, err error) {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // a watch is begun anew now and then
	}
	now := i.note(kind, err)
	i.mu.Lock()
	quiet := now.Sub(i.away) < awayLogPause
	if !quiet {
		i.away = now
	}
	i.mu.Unlock()
	if !quiet {
		klog.FromContext(ctx).Info("Cannot list or watch, trying again", "err", err)
	}
}

// Start starts the informers, and returns when they have synced: at once if they are the
// embedder's. They run until ctx is done. It waits for KubeVirt's custom resources if they
// are not there yet. Its error is that of ctx, with what was waited for.
func (c *Controller) Start(ctx context.Context) error {
	i := c.informers
	if i == nil {
		return nil
	}
	if err := c.awaitKubeVirt(ctx); err != nil {
		return err
	}
	i.mu.Lock()
	i.ctx = ctx
	i.mu.Unlock()
	i.follow(ctx)
	i.tryToRead(ctx)
	synced := []cache.InformerSynced{i.progress.synced.Load, i.canRead}
	for _, informer := range i.all() {
		go informer.RunWithContext(ctx)
		synced = append(synced, informer.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("%w: %w", c.Synced(), context.Cause(ctx))
	}
	return nil
}

// awaitKubeVirt waits until the API server serves migrations, and logs once that it waits.
func (c *Controller) awaitKubeVirt(ctx context.Context) error {
	told := false
	for {
		_, err := c.clients.KubeVirt.Resource(migrationsResource).List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsNotFound(err) {
			return nil // of another error the informer tells
		}
		c.informers.note(migrationsKind, err)
		if !told {
			klog.FromContext(ctx).Info("Waiting for KubeVirt: its custom resources are not there yet")
			told = true
		}
		select {
		case <-time.After(crdPause):
		case <-ctx.Done():
			return fmt.Errorf("waiting for KubeVirt's custom resources: %w", context.Cause(ctx))
		}
	}
}

// recordEvents sends events to the API server until stop is called.
func (c *Controller) recordEvents() (stop func()) {
	c.recording.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.clients.Core.CoreV1().Events("")})
	return c.recording.Shutdown
}

// namespaces returns those that have a quota and are this process's.
func (c *Controller) namespaces() ([]string, error) {
	if c.informers == nil {
		return nil, nil
	}
	var owned []string
	for _, namespace := range c.informers.quotas.GetIndexer().ListIndexFuncValues(cache.NamespaceIndex) {
		if c.options.Owns == nil || c.options.Owns(namespace) {
			owned = append(owned, namespace)
		}
	}
	return owned, nil
}

// prepare watches the objects of namespace while it has migrations in flight, and reports
// whether they are there. If not, the namespace is enqueued as soon as they are. RequeueAfter is
// when to call it again although nothing has happened; zero means not at all.
func (i *informers) prepare(namespace string) (ready bool, requeueAfter time.Duration) {
	now := i.controller.options.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	busy := i.mayBeBusy(namespace)
	w := i.watching[namespace]
	switch {
	case w == nil && !busy:
		return true, 0
	case i.ctx == nil:
		return false, 0
	case w == nil:
		i.progress.looked(namespace)
		i.watching[namespace] = i.watch(namespace, now)
		return false, 0
	case busy:
		w.busy = now
	case now.Sub(w.busy) >= idleTime:
		w.stop()
		delete(i.watching, namespace)
		return true, 0
	}
	if !w.hasSynced() {
		return false, 0
	}
	w.watchMore()
	return w.hasSynced(), w.busy.Add(idleTime).Sub(now)
}

// keep has namespace watched for some more time, because a migration is in flight.
func (i *informers) keep(namespace string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if w := i.watching[namespace]; w != nil {
		w.busy = i.controller.options.Now()
	}
}

// mayBeBusy reports whether namespace has a quota, and a migration that is in progress, or was
// not long ago and has not been watched.
func (i *informers) mayBeBusy(namespace string) bool {
	if !i.progress.mayBeBusy(namespace) {
		return false
	}
	quotas, err := i.quotas.GetIndexer().IndexKeys(cache.NamespaceIndex, namespace)
	return err == nil && len(quotas) > 0
}
