package migration

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// firstWatchPause and maxWatchPause are between two attempts to list or watch.
	firstWatchPause = time.Second
	maxWatchPause   = 30 * time.Second
	// maxKubeVirtPause is the longest one while KubeVirt is not installed.
	maxKubeVirtPause = 5 * time.Second
	// pageSize is how many objects are listed at a time.
	pageSize = 1000
)

var byNamespace = cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}

// The kinds, as the log and errors name them.
const (
	quotasKind         = "ResourceQuotas"
	namespacesKind     = "Namespaces"
	limitRangesKind    = "LimitRanges"
	refusalsKind       = "Events"
	migrationsKind     = "VirtualMachineInstanceMigrations"
	instancesKind      = "VirtualMachineInstances"
	podsKind           = "Pods"
	claimsKind         = "PersistentVolumeClaims"
	resourceClaimsKind = "ResourceClaims"
	deviceClassesKind  = "DeviceClasses"
	claimRefusalsKind  = "Events of pods"
)

// A source lists and watches one kind. It tries again where a reflector would log each failure.
type source struct {
	*cache.ListWatch
	informers *informers
	kind      string
	selects   func(*metav1.ListOptions) // nil: all
	// keeps has it list in pages, of which it keeps only these objects. Then the list must not ask
	// for a resourceVersion: a page of one is of exactly that, and too old for ever once it is too
	// old to watch from.
	keeps   func(metav1.Object) bool
	refused func(error) // called when the API server refuses it or does not serve it; nil: that is logged
}

// IsWatchListSemanticsUnSupported keeps newer reflectors from streaming the list: there is
// little in it, and the clients of tests cannot.
func (s *source) IsWatchListSemanticsUnSupported() bool { return true }

// source returns that of a kind; the empty namespace stands for all.
func (i *informers) source(kind, namespace string) *source {
	clients := i.controller.clients
	core, devices := clients.Core.CoreV1(), clients.Core.ResourceV1()
	listWatches := map[string]*cache.ListWatch{
		quotasKind:         listWatch(core.ResourceQuotas(namespace)),
		namespacesKind:     listWatch(core.Namespaces()),
		limitRangesKind:    listWatch(core.LimitRanges(namespace)),
		refusalsKind:       listWatch(core.Events(namespace)),
		migrationsKind:     clients.kubeVirt(migrationsResource, namespace),
		instancesKind:      clients.kubeVirt(instancesResource, namespace),
		podsKind:           listWatch(core.Pods(namespace)),
		claimsKind:         listWatch(core.PersistentVolumeClaims(namespace)),
		resourceClaimsKind: listWatch(devices.ResourceClaims(namespace)),
		deviceClassesKind:  listWatch(devices.DeviceClasses()),
		claimRefusalsKind:  listWatch(core.Events(namespace)),
	}
	selects := map[string]func(*metav1.ListOptions){
		podsKind: SelectPods, refusalsKind: SelectRefusals, claimRefusalsKind: selectClaimRefusals,
	}
	return &source{ListWatch: listWatches[kind], informers: i, kind: kind, selects: selects[kind]}
}

// A lister is a client of one kind.
type lister[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

func listWatch[L runtime.Object](client lister[L]) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.List(ctx, options)
		},
		WatchFuncWithContext: client.Watch,
	}
}

// ListWithContext implements cache.ListerWithContext.
func (s *source) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if s.keeps != nil {
		options.ResourceVersion, options.ResourceVersionMatch = "", ""
	}
	list, err := patiently(ctx, s, s.ListWatch.ListWithContext, options)
	if err != nil || s.keeps == nil {
		return list, err
	}
	var kept []runtime.Object
	err = meta.EachListItem(list, func(object runtime.Object) error {
		o, err := meta.Accessor(object)
		if err == nil && s.keeps(o) {
			kept = append(kept, object)
		}
		return err
	})
	return list, errors.Join(err, meta.SetList(list, kept))
}

// WatchWithContext implements cache.WatcherWithContext.
func (s *source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return patiently(ctx, s, s.ListWatch.WatchWithContext, options)
}

// patiently calls do until the server answers. That a resourceVersion has expired is an
// answer.
func patiently[T any](
	ctx context.Context, s *source, do func(context.Context, metav1.ListOptions) (T, error), options metav1.ListOptions,
) (T, error) {
	if s.selects != nil {
		s.selects(&options)
	}
	for pause := firstWatchPause; ; pause = min(2*pause, maxWatchPause) {
		answer, err := do(ctx, options)
		switch {
		case err == nil:
			s.informers.answered(s.kind)
			return answer, nil
		case ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
			return answer, err
		case s.refused != nil && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)):
			s.refused(err)
		default:
			s.failed(ctx, err)
		}
		select {
		case <-time.After(s.spread(pause, err)):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// spread returns how long to wait after err: pause to twice that, so that sources do not all try
// again at once, and at most maxKubeVirtPause for KubeVirt to be installed.
func (s *source) spread(pause time.Duration, err error) time.Duration {
	pause += rand.N(pause)
	if s.lacksKubeVirt(err) {
		return min(pause, maxKubeVirtPause)
	}
	return pause
}

// lacksKubeVirt reports whether err says that the API server does not serve KubeVirt's kinds.
func (s *source) lacksKubeVirt(err error) bool {
	return apierrors.IsNotFound(err) && (s.kind == migrationsKind || s.kind == instancesKind)
}

// A store is what a reflector fills.
type store struct {
	cache.Indexer                                        // by namespace
	keep          func(object any) (kept any, err error) // what it stores of an object; nil: nothing
	changed       func(namespace string)                 // maybe of the empty one
	synced        atomic.Bool
}

func newStore(keep func(any) (any, error), changed func(namespace string)) *store {
	indexer := cache.NewIndexer(cache.DeletionHandlingMetaNamespaceKeyFunc, byNamespace)
	return &store{Indexer: indexer, keep: keep, changed: changed}
}

// trimmed returns object without what the library does not read, its version among that.
func trimmed(object any) (any, error) {
	object, err := Trim(object)
	if err != nil {
		return nil, err
	}
	o, err := meta.Accessor(object)
	if err == nil {
		o.SetResourceVersion("")
	}
	return object, err
}

// reflect fills s from a source until ctx is done. There is no shared informer, because there
// may be a thousand of these: it costs twice the goroutines and the memory.
func (s *store) reflect(ctx context.Context, from *source) {
	reflector := cache.NewReflectorWithOptions(from, nil, s, cache.ReflectorOptions{Name: Component})
	if from.keeps != nil {
		reflector.WatchListPageSize = pageSize
	}
	go reflector.RunWithContext(ctx)
}

// Add implements cache.ReflectorStore.
func (s *store) Add(object any) error { return s.Update(object) }

// Update implements cache.ReflectorStore. An update that changes nothing of what is kept is none:
// the object that is known stays, and nothing is reconciled.
func (s *store) Update(object any) error {
	kept, err := s.keep(object)
	switch {
	case err != nil:
		return err
	case kept == nil:
		return s.Delete(object)
	}
	if known, exists, err := s.Get(kept); err == nil && exists && equality.Semantic.DeepEqual(known, kept) {
		return nil
	}
	defer s.changed(namespaceIn(kept))
	return s.Indexer.Update(kept)
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(object any) error {
	defer s.changed(namespaceIn(object))
	return s.Indexer.Delete(object)
}

// Replace implements cache.ReflectorStore.
func (s *store) Replace(objects []any, version string) error {
	namespaces := append(s.ListIndexFuncValues(cache.NamespaceIndex), "") // an empty list is a change too
	kept := make([]any, 0, len(objects))
	for _, object := range objects {
		o, err := s.keep(object)
		if err != nil {
			return err
		}
		if o != nil {
			kept = append(kept, o)
		}
		namespaces = append(namespaces, namespaceIn(object))
	}
	if err := s.Indexer.Replace(kept, version); err != nil {
		return err
	}
	s.synced.Store(true)
	slices.Sort(namespaces)
	for _, namespace := range slices.Compact(namespaces) {
		s.changed(namespace)
	}
	return nil
}

// namespaceIn returns the namespace of an API object, "" if it has none.
func namespaceIn(object any) string {
	if o, err := meta.Accessor(object); err == nil {
		return o.GetNamespace()
	}
	return ""
}
