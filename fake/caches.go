package fake

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// Caches are what the informers of a [Process] hold: each kind on its own a little older than the store, and
// never older than before. The objects are read only. All have cache.NamespaceIndex, so that the listers of
// client-go can be made from them.
type Caches map[Kind]cache.Indexer

// Snapshot returns what the caches hold about namespace, for migration.InFlight.
func (c Caches) Snapshot(namespace string) migration.Snapshot {
	s, _ := c.Migration().Snapshot(context.Background(), namespace) // the indexers have the index
	return s
}

// Migration returns the caches as package migration takes them.
func (c Caches) Migration() migration.Caches {
	return migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](c[Migrations]),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](c[VMIs]),
		Pods:        migration.FromIndexer[corev1.Pod](c[Pods]),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](c[LimitRanges]),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](c[Claims]),
		Events:      migration.FromIndexer[corev1.Event](c[Events]),
		Namespace:   migration.FromStore(c[Namespaces]),

		ResourceClaims: migration.FromIndexer[resourcev1.ResourceClaim](c[ResourceClaims]),
	}
}

// Lag makes the cache of kind as old as lag says, from now on and over crashes. It is how a cache goes stale.
// The zero Span stands for Config.Timing again.
func (p *Process) Lag(kind Kind, lag Span) {
	p.lags[kind] = lag
	p.cluster.note("%s sees %s %v to %v late", p.name, kind, lag.Min, lag.Max)
}

// DropWatch loses what happens to objects of kind for d. Then the cache lists them anew: what was deleted
// meanwhile is a tombstone, what came and went leaves no trace.
func (p *Process) DropWatch(kind Kind, d time.Duration) {
	i := p.informers[kind]
	if i == nil {
		return
	}
	p.cluster.note("%s loses its watch of %s for %v", p.name, kind, d)
	i.deaf++
	i.epoch++
	p.cluster.clock.after(d, func() {
		if i.deaf--; i.deaf == 0 && !i.stopped {
			i.relist()
		}
	})
}

func (p *Process) openCaches() {
	p.Caches, p.informers = Caches{}, map[Kind]*informer{}
	for _, kind := range kinds {
		i := &informer{process: p, kind: kind, Indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{
			cache.NamespaceIndex: cache.MetaNamespaceIndexFunc,
		})}
		for _, o := range p.cluster.store.list(kind, "") {
			must(i.Add(o))
		}
		p.Caches[kind], p.informers[kind] = i.Indexer, i
	}
}

// An informer keeps the cache of one kind.
type informer struct {
	cache.Indexer
	process *Process
	kind    Kind
	last    time.Time // when the latest event arrives
	epoch   int       // counts the watches; events of an older one never arrive
	deaf    int       // how many times over the watch is dropped
	stopped bool
}

// observe sends a change on its way.
func (i *informer) observe(c change) {
	if i.deaf > 0 || i.stopped {
		return
	}
	cluster := i.process.cluster
	lag := cluster.config.Timing.Cache
	for _, other := range []Span{i.process.Latency, i.process.lags[i.kind]} {
		if other != (Span{}) {
			lag = other
		}
	}
	i.last = later(i.last, cluster.clock.now.Add(cluster.draw(lag)))
	epoch := i.epoch
	cluster.clock.after(i.last.Sub(cluster.clock.now), func() {
		switch {
		case i.epoch != epoch || i.stopped:
			return
		case c.after == nil:
			must(i.Delete(c.before))
		default:
			must(i.Update(c.after))
		}
		i.wake(c.object())
	})
}

func (i *informer) relist() {
	listed := map[string]bool{}
	for _, o := range i.process.cluster.store.list(i.kind, "") {
		listed[cache.MetaObjectToName(o).String()] = true
		cached, _, err := i.Get(o)
		must(err)
		if was, ok := cached.(object); ok && was.GetResourceVersion() == o.GetResourceVersion() {
			continue
		}
		must(i.Update(o))
		i.wake(o)
	}
	for _, name := range slices.Sorted(slices.Values(i.ListKeys())) {
		if gone, _, err := i.GetByKey(name); !listed[name] {
			must(err)
			must(i.Delete(gone))
			i.wake(cache.DeletedFinalStateUnknown{Key: name, Obj: gone})
		}
	}
}

// wake calls the program because of o.
func (i *informer) wake(o any) {
	if namespace := i.process.program.Namespace(o); namespace != "" {
		i.process.Enqueue(namespace)
	}
}

// must is for errors of the key function, which names every object of the store.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
