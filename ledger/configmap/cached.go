package configmap

import (
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// An Informer is the part of client-go's cache.SharedIndexInformer that the ledger
// uses.
type Informer interface {
	GetStore() cache.Store
	HasSynced() bool
	AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)
}

// cached is an informer's cache, corrected by what this process knows to be later. Its
// methods do nothing on nil.
type cached struct {
	informer Informer

	mu sync.Mutex
	// latest is by tenant namespace, and only where the informer may be behind. What is
	// known of deleted ones stays until there is a new one, because a cache without the
	// ConfigMap may still be about to see how it was created.
	latest map[string]*known
}

// known is the latest that the API server has told this process about a ConfigMap, by
// a read or by the answer to a write. It is replaced, but not changed.
type known struct {
	configMap *corev1.ConfigMap // nil: there is none
	// version is the resourceVersion of configMap; without one, the last that it had.
	version  uint64
	doubtful bool // a write has failed, or the versions cannot be compared
}

// get returns the ConfigMap of p, or nil if there is none, or false if it must be asked
// for.
func (c *cached) get(p place) (*corev1.ConfigMap, bool) {
	if c == nil || !c.informer.HasSynced() {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	latest := c.latest[p.tenant]
	inCache, ok := c.stored(p)
	switch {
	case !ok || latest != nil && latest.doubtful:
		return nil, false
	case latest == nil:
		return inCache, true
	case inCache == nil:
		// Either the cache has not seen it yet, or somebody has deleted it.
		return nil, latest.configMap == nil
	}
	version, ok := versionOf(inCache)
	if !ok {
		return nil, false
	}
	if version > latest.version || version == latest.version && latest.configMap != nil {
		delete(c.latest, p.tenant)
		return inCache, true
	}
	return latest.configMap, true
}

// stored returns what the informer has for p, and false if that is no ConfigMap.
func (c *cached) stored(p place) (*corev1.ConfigMap, bool) {
	object, exists, err := c.informer.GetStore().GetByKey(p.system + "/" + p.name())
	if err != nil || !exists {
		return nil, err == nil
	}
	configMap, ok := object.(*corev1.ConfigMap)
	return configMap, ok
}

// wrote notes the answer to a create or an update.
func (c *cached) wrote(p place, configMap *corev1.ConfigMap) {
	if c != nil {
		c.note(p, knownAs(configMap))
	}
}

// deleted notes that configMap was deleted, in the version that it has.
func (c *cached) deleted(p place, configMap *corev1.ConfigMap) {
	if c != nil {
		gone := knownAs(configMap)
		gone.configMap = nil
		c.note(p, gone)
	}
}

// note makes k the latest, unless a read that overtook the answer to a write has found
// what is later.
func (c *cached) note(p place, k *known) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if latest := c.latest[p.tenant]; latest == nil || latest.version <= k.version || k.doubtful {
		c.latest[p.tenant] = k
	}
}

// doubt notes that a write has failed, so that nobody knows what is there.
func (c *cached) doubt(p place) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	doubtful := &known{doubtful: true}
	if latest := c.latest[p.tenant]; latest != nil {
		doubtful.version = latest.version
	}
	c.latest[p.tenant] = doubtful
}

// A glance is what there was before a live read.
type glance struct {
	latest  *known
	inCache *known // nil: nothing
}

func (c *cached) glance(p place) glance {
	if c == nil {
		return glance{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := glance{latest: c.latest[p.tenant]}
	if configMap, ok := c.stored(p); ok && configMap != nil {
		g.inCache = knownAs(configMap)
	}
	return g
}

// saw notes what a live read has found, unless more has become known since before it.
func (c *cached) saw(p place, before glance, configMap *corev1.ConfigMap) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest[p.tenant] != before.latest {
		return
	}
	if configMap != nil {
		c.latest[p.tenant] = knownAs(configMap)
		return
	}
	// Whatever this process knew before, and what the cache showed, is gone.
	var gone known
	if before.latest != nil {
		gone.version = before.latest.version
	}
	if before.inCache != nil {
		gone.version = max(gone.version, before.inCache.version)
		gone.doubtful = before.inCache.doubtful
	}
	if gone == (known{}) {
		delete(c.latest, p.tenant)
		return
	}
	c.latest[p.tenant] = &gone
}

func knownAs(configMap *corev1.ConfigMap) *known {
	version, ok := versionOf(configMap)
	return &known{configMap: configMap, version: version, doubtful: !ok}
}

// versionOf returns the resourceVersion, of which a greater one is a later one among
// objects of the same kind.
func versionOf(configMap *corev1.ConfigMap) (version uint64, ok bool) {
	version, err := strconv.ParseUint(configMap.ResourceVersion, 10, 64)
	return version, err == nil
}
