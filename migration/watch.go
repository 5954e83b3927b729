package migration

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

const (
	// firstWatchPause and maxWatchPause are between two attempts to list or watch.
	firstWatchPause = time.Second
	maxWatchPause   = 30 * time.Second
)

// A watched namespace is one with a migration in flight. Its objects are watched by
// reflectors without more, because there may be a thousand of them: a shared informer costs
// twice the goroutines and the memory.
type watched struct {
	informers *informers
	namespace string
	ctx       context.Context
	stop      context.CancelFunc
	busy      time.Time // when a migration was last in flight

	migrations, pods, vmis *store
	claims                 *store // nil until a VMI has backend storage
}

// watch starts to watch the objects of namespace.
func (i *informers) watch(namespace string, now time.Time) *watched {
	w := &watched{informers: i, namespace: namespace, busy: now}
	w.ctx, w.stop = context.WithCancel(i.ctx)
	core, kubeVirt := i.controller.clients.Core.CoreV1(), i.controller.clients.KubeVirt
	w.migrations, w.pods, w.vmis = w.newStore(), w.newStore(), w.newStore()
	i.reflect(w.ctx, w.pods, cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			SelectPods(&options)
			return core.Pods(namespace).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			SelectPods(&options)
			return core.Pods(namespace).Watch(ctx, options)
		},
	})
	for store, resource := range map[*store]schema.GroupVersionResource{w.migrations: migrationsResource, w.vmis: instancesResource} {
		i.reflect(w.ctx, store, cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return kubeVirt.Resource(resource).Namespace(namespace).List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return kubeVirt.Resource(resource).Namespace(namespace).Watch(ctx, options)
			},
		})
	}
	return w
}

// watchClaims starts to watch the claims of the namespace, if a VMI needs any.
func (w *watched) watchClaims() {
	if w.claims != nil || !w.persists() {
		return
	}
	w.claims = w.newStore()
	core := w.informers.controller.clients.Core.CoreV1()
	w.informers.reflect(w.ctx, w.claims, cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return core.PersistentVolumeClaims(w.namespace).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return core.PersistentVolumeClaims(w.namespace).Watch(ctx, options)
		},
	})
}

// persists reports whether a VMI of the namespace has backend storage.
func (w *watched) persists() bool {
	for _, object := range w.vmis.List() {
		if vmi, ok := object.(*kubevirtv1.VirtualMachineInstance); ok && (persists(vmi) || backendClaimName(vmi) != "") {
			return true
		}
	}
	return false
}

// hasSynced reports whether all that is watched is there.
func (w *watched) hasSynced() bool {
	return w.migrations.synced.Load() && w.pods.synced.Load() && w.vmis.synced.Load() && (w.claims == nil || w.claims.synced.Load())
}

// enqueue asks for a reconcile after a change, once all is there.
func (w *watched) enqueue() {
	w.informers.mu.Lock()
	synced := w.hasSynced()
	w.informers.mu.Unlock()
	if synced {
		w.informers.controller.Enqueue(w.namespace)
	}
}

// reflect keeps in s what from lists and watches, until ctx is done.
func (i *informers) reflect(ctx context.Context, s cache.ReflectorStore, from cache.ListWatch) {
	reflector := cache.NewReflectorWithOptions(&listWatch{informers: i, from: from}, nil, s, cache.ReflectorOptions{Name: Component})
	go reflector.RunWithContext(ctx)
}

// A store is what a reflector fills.
type store struct {
	cache.Store
	synced  atomic.Bool
	changed func()
}

func (w *watched) newStore() *store {
	return &store{Store: cache.NewStore(cache.MetaNamespaceKeyFunc), changed: w.enqueue}
}

// Add implements cache.ReflectorStore.
func (s *store) Add(object any) error { return s.Update(object) }

// Update implements cache.ReflectorStore.
func (s *store) Update(object any) error {
	object, err := Trim(object)
	if err != nil {
		return err
	}
	defer s.changed()
	return s.Store.Update(object)
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(object any) error {
	defer s.changed()
	return s.Store.Delete(object)
}

// Replace implements cache.ReflectorStore.
func (s *store) Replace(objects []any, version string) error {
	for i, object := range objects {
		trimmed, err := Trim(object)
		if err != nil {
			return err
		}
		objects[i] = trimmed
	}
	if err := s.Store.Replace(objects, version); err != nil {
		return err
	}
	s.synced.Store(true)
	s.changed()
	return nil
}

// A listWatch tries again where a reflector would log each failure.
type listWatch struct {
	informers *informers
	from      cache.ListWatch
}

// IsWatchListSemanticsUnSupported keeps newer reflectors from streaming the list: there is
// little in it, and the clients of tests cannot.
func (l *listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// List implements cache.ListerWatcher.
func (l *listWatch) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(l.informers.ctx, options)
}

// Watch implements cache.ListerWatcher.
func (l *listWatch) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(l.informers.ctx, options)
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (l *listWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	return patiently(ctx, l.informers, func() (runtime.Object, error) { return l.from.ListWithContext(ctx, options) })
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l *listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return patiently(ctx, l.informers, func() (watch.Interface, error) { return l.from.WatchWithContext(ctx, options) })
}

// patiently calls do until the server answers. That a resourceVersion has expired is an
// answer.
func patiently[T any](ctx context.Context, i *informers, do func() (T, error)) (T, error) {
	for pause := firstWatchPause; ; pause = min(2*pause, maxWatchPause) {
		answer, err := do()
		if err == nil || ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return answer, err
		}
		i.tellAway(ctx, nil, err)
		select {
		case <-time.After(pause + rand.N(pause)):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// listWatched lists from a store of a namespace, nothing if the namespace is not watched.
func listWatched[T any](i *informers, of func(*watched) *store) List[T] {
	return func(_ context.Context, namespace string) ([]*T, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		w := i.watching[namespace]
		if w == nil || of(w) == nil {
			return nil, nil
		}
		return typed[T](of(w).List())
	}
}
