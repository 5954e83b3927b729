package migration

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// idleTime is how long the objects of a namespace stay watched after its last migration. To
// begin anew costs some milliseconds and a list of pods and of VMIs.
const idleTime = time.Minute

// A watched namespace is one with a migration in flight: its migrations, pods and VMIs are
// watched, its claims if a VMI has backend storage, and what devices are charged for if a pod
// has ResourceClaims from templates.
type watched struct {
	informers *informers
	namespace string
	ctx       context.Context
	stop      context.CancelFunc
	busy      time.Time         // when a migration was last in flight
	stores    map[string]*store // by kind
}

// deviceKinds are not read unless a pod has devices, and need not be readable.
var deviceKinds = []string{resourceClaimsKind, deviceClassesKind, claimRefusalsKind}

// watch starts to watch those of kinds that are not watched yet.
func (w *watched) watch(kinds ...string) {
	for _, kind := range kinds {
		if w.stores[kind] != nil {
			continue
		}
		s := newStore(trimmed, func(string) { w.enqueue() })
		w.stores[kind] = s
		from := w.informers.source(kind, w.namespace)
		if slices.Contains(deviceKinds, kind) {
			from.refused = func(err error) { w.goWithout(kind, s, err) }
		}
		s.reflect(w.ctx, from)
	}
}

// goWithout has s be empty, because the API server refuses kind, or does not serve it. It is
// logged once.
func (w *watched) goWithout(kind string, s *store, err error) {
	if _, told := w.informers.untold.LoadOrStore(kind, true); !told {
		klog.FromContext(w.ctx).Info("Cannot list or watch, so devices of virtual machines are not counted in full",
			"kind", kind, "err", err)
	}
	if !s.synced.Swap(true) {
		w.enqueue()
	}
}

// watchMore starts to watch what the objects that are there make worth watching.
func (w *watched) watchMore() {
	stored := func(vmi *kubevirtv1.VirtualMachineInstance) bool { return persists(vmi) || backendClaimName(vmi) != "" }
	if anyOf(w.stores[instancesKind], stored) {
		w.watch(claimsKind)
	}
	if anyOf(w.stores[podsKind], func(pod *corev1.Pod) bool { return len(templated(pod)) > 0 }) {
		w.watch(deviceKinds...)
	}
}

func anyOf[T any](s *store, is func(*T) bool) bool {
	return slices.ContainsFunc(s.List(), func(object any) bool {
		t, ok := object.(*T)
		return ok && is(t)
	})
}

// hasSynced reports whether all that is watched is there.
func (w *watched) hasSynced() bool {
	for _, s := range w.stores {
		if !s.synced.Load() {
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

// prepare watches the objects of namespace while it has a quota and a migration that is in
// progress, or that was not long ago and has not been watched. It reports whether they are
// there. If not, the namespace is enqueued as soon as they are. RequeueAfter is when to call it
// again although nothing has happened; zero means not at all.
func (i *informers) prepare(namespace string) (ready bool, requeueAfter time.Duration) {
	now := i.controller.options.Now()
	has := func(in cache.Indexer) bool {
		keys, err := in.IndexKeys(cache.NamespaceIndex, namespace)
		return err == nil && len(keys) > 0
	}
	i.mu.Lock() // before progress is read: enqueueUnwatched relies on that
	defer i.mu.Unlock()
	limited, busy := has(i.shared[quotasKind].GetIndexer()), has(i.progress)
	w := i.watching[namespace]
	switch {
	case w == nil && !(limited && (busy || i.recent[namespace])):
		return true, 0
	case i.ctx == nil:
		return false, 0
	case w == nil:
		w = &watched{informers: i, namespace: namespace, busy: now, stores: map[string]*store{}}
		w.ctx, w.stop = context.WithCancel(i.ctx)
		i.watching[namespace] = w
		delete(i.recent, namespace)
		w.watch(podsKind, migrationsKind, instancesKind)
		return false, 0
	case limited && busy:
		w.busy = now
	case now.Sub(w.busy) >= idleTime:
		w.stop()
		delete(i.watching, namespace)
		delete(i.recent, namespace)
		return true, 0
	}
	if !w.hasSynced() {
		return false, 0
	}
	w.watchMore()
	return w.hasSynced(), w.busy.Add(idleTime).Sub(now)
}

// enqueueUnwatched asks for a reconcile of namespace, unless its own watch of migrations does. A
// reconcile before that has the migration would delay the next one by the gap of the loop.
func (i *informers) enqueueUnwatched(namespace string) {
	i.mu.Lock()
	_, watching := i.watching[namespace]
	i.mu.Unlock()
	if !watching {
		i.controller.Enqueue(namespace)
	}
}

// worthWatching reports whether any of the migrations has a pod, or a claim that a quota counts.
// What is left of a claim may be there for weeks, and few namespaces have such a quota.
func worthWatching(inFlight []quota.Migration, quotas []*corev1.ResourceQuota) bool {
	return slices.ContainsFunc(inFlight, func(m quota.Migration) bool {
		return !m.OnlyClaims() || slices.ContainsFunc(quotas, func(rq *corev1.ResourceQuota) bool {
			return len(counted(rq, m.Surge)) > 0
		})
	})
}

// keep has namespace watched for some more time, because a migration is in flight.
func (i *informers) keep(namespace string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if w := i.watching[namespace]; w != nil {
		w.busy = i.controller.options.Now()
	}
}

// listWatched lists from a store of a namespace, nothing if that is not watched.
func listWatched[T any](i *informers, kind string) List[T] {
	return func(_ context.Context, namespace string) ([]*T, error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		w := i.watching[namespace]
		if w == nil || w.stores[kind] == nil {
			return nil, nil
		}
		return typed[T](w.stores[kind].List())
	}
}
