package migration

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
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
	// Nil until a pod has claims from templates.
	resourceClaims, deviceClasses, claimRefusals *store
}

// watch starts to watch the objects of namespace.
func (i *informers) watch(namespace string, now time.Time) *watched {
	w := &watched{informers: i, namespace: namespace, busy: now}
	w.ctx, w.stop = context.WithCancel(i.ctx)
	core, kubeVirt := i.controller.clients.Core.CoreV1(), i.controller.clients.KubeVirt
	w.migrations, w.pods, w.vmis = w.newStore(), w.newStore(), w.newStore()
	i.reflect(w.ctx, podsKind, w.pods, from(core.Pods(namespace), SelectPods), nil)
	i.reflect(w.ctx, migrationsKind, w.migrations, from(kubeVirt.Resource(migrationsResource).Namespace(namespace), nil), nil)
	i.reflect(w.ctx, instancesKind, w.vmis, from(kubeVirt.Resource(instancesResource).Namespace(namespace), nil), nil)
	return w
}

// A lister is a client of one kind.
type lister[L runtime.Object] interface {
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// from lists and watches with client what selects asks for; nil: all.
func from[L runtime.Object](client lister[L], selects func(*metav1.ListOptions)) cache.ListWatch {
	if selects == nil {
		selects = func(*metav1.ListOptions) {}
	}
	return cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			selects(&options)
			return client.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			selects(&options)
			return client.Watch(ctx, options)
		},
	}
}

// watchMore starts to watch the claims of the namespace, if a VMI needs any, and what the
// devices of its pods are charged for, if these have claims from templates.
func (w *watched) watchMore() {
	core := w.informers.controller.clients.Core
	if w.claims == nil && w.persists() {
		w.claims = w.newStore()
		w.informers.reflect(w.ctx, claimsKind, w.claims, from(core.CoreV1().PersistentVolumeClaims(w.namespace), nil), nil)
	}
	if w.resourceClaims == nil && w.hasDevices() {
		w.resourceClaims, w.deviceClasses, w.claimRefusals = w.newStore(), w.newStore(), w.newStore()
		w.optionally(w.resourceClaims, "ResourceClaims", from(core.ResourceV1().ResourceClaims(w.namespace), nil))
		w.optionally(w.deviceClasses, "DeviceClasses", from(core.ResourceV1().DeviceClasses(), nil))
		w.optionally(w.claimRefusals, "Events of pods", from(core.CoreV1().Events(w.namespace), selectClaimRefusals))
	}
}

// optionally keeps in s what from lists. If the API server refuses that, or does not serve
// the kind, s is empty, and it is logged once.
func (w *watched) optionally(s *store, kind string, from cache.ListWatch) {
	w.informers.reflect(w.ctx, kind, s, from, func(err error) {
		if _, told := w.informers.refused.LoadOrStore(kind, true); !told {
			klog.FromContext(w.ctx).Info("Cannot list or watch, so devices of virtual machines are not counted in full", "kind", kind, "err", err)
		}
		if !s.synced.Swap(true) {
			s.changed()
		}
	})
}

// hasDevices reports whether Kubernetes makes ResourceClaims for a pod of the namespace.
func (w *watched) hasDevices() bool {
	for _, object := range w.pods.List() {
		if pod, ok := object.(*corev1.Pod); ok && len(templated(pod)) > 0 {
			return true
		}
	}
	return false
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
	for _, s := range []*store{w.migrations, w.pods, w.vmis, w.claims, w.resourceClaims, w.deviceClasses, w.claimRefusals} {
		if s != nil && !s.synced.Load() {
			return false
		}
	}
	return true
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

// reflect keeps in s what from lists and watches, until ctx is done. It calls refused, unless
// that is nil, whenever the API server refuses it or does not serve it.
func (i *informers) reflect(ctx context.Context, kind string, s cache.ReflectorStore, from cache.ListWatch, refused func(error)) {
	reflector := cache.NewReflectorWithOptions(&listWatch{informers: i, kind: kind, from: from, refused: refused}, nil, s, cache.ReflectorOptions{Name: Component})
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
	kind      string
	from      cache.ListWatch
	refused   func(error) // nil: it is logged like others
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
	return patiently(ctx, l, func() (runtime.Object, error) { return l.from.ListWithContext(ctx, options) })
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l *listWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return patiently(ctx, l, func() (watch.Interface, error) { return l.from.WatchWithContext(ctx, options) })
}

// patiently calls do until the server answers. That a resourceVersion has expired is an
// answer.
func patiently[T any](ctx context.Context, l *listWatch, do func() (T, error)) (T, error) {
	for pause := firstWatchPause; ; pause = min(2*pause, maxWatchPause) {
		answer, err := do()
		if err == nil || ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			if err == nil {
				l.informers.answered(l.kind)
			}
			return answer, err
		}
		if l.refused != nil && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)) {
			l.refused(err)
		} else {
			l.informers.tellAway(ctx, l.kind, err)
		}
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
