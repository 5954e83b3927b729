package migration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

var (
	migrationsResource = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	instancesResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
)

const (
	// awayLogPause is the least time between two log lines about a server that is away.
	awayLogPause = time.Minute
	// staleTime is for how long a kind can fail to be read until its cache is stale.
	staleTime = 30 * time.Second
	// failureTime is after what time without another failure a kind is read again: sources try
	// more often than that.
	failureTime = 2*maxWatchPause + 10*time.Second
)

// Informers are a Controller's own. What does not migrate is not held: quotas, namespaces,
// LimitRanges and refusals are watched in the whole cluster, because there are few or they are
// small, and of the migrations the names of those in progress; see watched for the rest.
type informers struct {
	controller *Controller
	shared     map[string]cache.SharedIndexInformer // of the whole cluster, by kind
	progress   *store
	read       map[string]*atomic.Bool         // of kinds that are watched in namespaces: whether one object was read
	synced     map[string]cache.InformerSynced // by kind: what Start waits for
	untold     sync.Map                        // the optional kinds that the API server refuses

	mu       sync.Mutex
	ctx      context.Context // of Start; nil before
	watching map[string]*watched
	recent   map[string]bool    // namespaces with a migration that is over, is not old, and has not been watched
	away     time.Time          // when it was last logged that the server is away
	awaited  bool               // whether it was logged that KubeVirt is not installed
	failing  map[string]failure // by kind
}

// A failure is that a kind cannot be read.
type failure struct {
	since, last time.Time
	err         error
}

// watch makes the informers.
func (c *Controller) watch() error {
	i := &informers{
		controller: c,
		shared:     map[string]cache.SharedIndexInformer{},
		read:       map[string]*atomic.Bool{},
		synced:     map[string]cache.InformerSynced{},
		watching:   map[string]*watched{},
		recent:     map[string]bool{},
		failing:    map[string]failure{},
	}
	c.informers = i
	for kind, example := range map[string]runtime.Object{
		quotasKind: &corev1.ResourceQuota{}, namespacesKind: &corev1.Namespace{},
		limitRangesKind: &corev1.LimitRange{}, refusalsKind: &corev1.Event{},
	} {
		informer := cache.NewSharedIndexInformer(i.source(kind, ""), example, 0, byNamespace)
		_, err := informer.AddEventHandler(c.Handler())
		if err = errors.Join(err, informer.SetTransform(Trim)); err != nil {
			return err
		}
		i.shared[kind], i.synced[kind] = informer, informer.HasSynced
	}
	for _, kind := range []string{podsKind, claimsKind, instancesKind} {
		i.read[kind] = &atomic.Bool{}
		i.synced[kind] = i.read[kind].Load
	}
	i.progress = newStore(i.keepInProgress, i.enqueueUnwatched)
	i.synced[migrationsKind] = i.progress.synced.Load
	c.quotas = FromIndexer[corev1.ResourceQuota](i.shared[quotasKind].GetIndexer())
	c.caches = Caches{
		Migrations:     listWatched[kubevirtv1.VirtualMachineInstanceMigration](i, migrationsKind),
		VMIs:           listWatched[kubevirtv1.VirtualMachineInstance](i, instancesKind),
		Pods:           listWatched[corev1.Pod](i, podsKind),
		PVCs:           listWatched[corev1.PersistentVolumeClaim](i, claimsKind),
		LimitRanges:    FromIndexer[corev1.LimitRange](i.shared[limitRangesKind].GetIndexer()),
		Namespace:      FromStore(i.shared[namespacesKind].GetStore()),
		ResourceClaims: listWatched[resourcev1.ResourceClaim](i, resourceClaimsKind),
		DeviceClasses:  listWatched[resourcev1.DeviceClass](i, deviceClassesKind),
	}
	ofMachines := FromIndexer[corev1.Event](i.shared[refusalsKind].GetIndexer())
	ofPods := listWatched[corev1.Event](i, claimRefusalsKind)
	c.caches.Events = func(ctx context.Context, namespace string) ([]*corev1.Event, error) {
		events, err := ofMachines(ctx, namespace)
		more, otherErr := ofPods(ctx, namespace)
		return append(events, more...), errors.Join(err, otherErr)
	}
	return nil
}

// Start starts the informers, and returns when they have synced: at once if they are the
// embedder's. They run until ctx is done. It waits for KubeVirt's custom resources if they
// are not there yet, and logs that once. Its error is that of ctx, with what was waited for.
func (c *Controller) Start(ctx context.Context) error {
	i := c.informers
	if i == nil {
		return nil
	}
	i.mu.Lock()
	i.ctx = ctx
	i.mu.Unlock()
	i.progress.reflect(ctx, i.allMigrations())
	for kind, read := range i.read { // a process that must not read them should not lead
		go func() {
			_, err := i.source(kind, "").ListWithContext(ctx, metav1.ListOptions{Limit: 1})
			read.Store(err == nil)
		}()
	}
	for _, informer := range i.shared {
		go informer.RunWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), slices.Collect(maps.Values(i.synced))...) {
		return fmt.Errorf("%w: %w", c.Synced(), context.Cause(ctx))
	}
	return nil
}

// Synced returns an error that names the caches that have not synced yet, or could not be
// kept up to date for half a minute, each with the reason if it is known; nil if there is
// none. It is for a readiness probe. A leader should give its Lease back.
func (c *Controller) Synced() error {
	if c.informers == nil {
		return nil
	}
	i, now := c.informers, c.options.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for _, kind := range slices.Sorted(maps.Keys(i.synced)) {
		problem, f := "", i.failing[kind]
		fails := f.err != nil && now.Sub(f.last) <= failureTime
		switch {
		case !i.synced[kind]():
			problem = "has not synced"
		case fails && f.last.Sub(f.since) >= staleTime:
			problem = "is not up to date"
		default:
			continue
		}
		err := fmt.Errorf("the cache of %s %s", kind, problem)
		if fails {
			err = fmt.Errorf("%w: %w", err, f.err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// failed records that s could not be read. It logs once that KubeVirt is not installed, and other
// failures at most once in awayLogPause.
func (s *source) failed(ctx context.Context, err error) {
	i, now := s.informers, s.informers.controller.options.Now()
	lacksKubeVirt := s.lacksKubeVirt(err)
	i.mu.Lock()
	f := i.failing[s.kind]
	if now.Sub(f.last) > failureTime {
		f.since = now
	}
	f.last, f.err = now, err
	i.failing[s.kind] = f
	quiet := now.Sub(i.away) < awayLogPause
	switch {
	case lacksKubeVirt:
		quiet, i.awaited = i.awaited, true
	case !quiet:
		i.away = now
	}
	i.mu.Unlock()
	switch {
	case quiet:
	case lacksKubeVirt:
		klog.FromContext(ctx).Info("Waiting for KubeVirt: its custom resources are not there yet")
	default:
		klog.FromContext(ctx).Info("Cannot list or watch, trying again", "err", err)
	}
}

// answered records that kind can be read.
func (i *informers) answered(kind string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.failing, kind)
}

// namespaces returns those that have a quota and are this process's.
func (c *Controller) namespaces() ([]string, error) {
	if c.informers == nil {
		return nil, nil
	}
	all := c.informers.shared[quotasKind].GetIndexer().ListIndexFuncValues(cache.NamespaceIndex)
	return slices.DeleteFunc(all, func(namespace string) bool { return !c.options.Owns(namespace) }), nil
}
