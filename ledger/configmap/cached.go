package configmap

import (
	"errors"
	"strconv"
	"strings"
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

// OnChange calls f with each tenant namespace whose record has changed, whoever changed
// it, and in the beginning with each that has one. Reads of this Ledger show the change
// by then. The calls come one after the other, from the informer: f should put the
// namespace on a queue and return.
//
// The registration has synced when f was called for all that were there in the beginning.
// It is an error if the Ledger has no informer ([WithInformer]).
func (l *Ledger) OnChange(f func(namespace string)) (cache.ResourceEventHandlerRegistration, error) {
	if l.cache == nil {
		return nil, errors.New("a ledger without an informer does not see changes")
	}
	changed := func(object any) {
		if namespace, ok := l.tenantOf(object); ok {
			f(namespace)
		}
	}
	return l.cache.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed,
		UpdateFunc: func(before, after any) {
			b, ok := before.(*corev1.ConfigMap)
			a, isToo := after.(*corev1.ConfigMap)
			if !ok || !isToo || a.ResourceVersion != b.ResourceVersion { // otherwise a resync of the informer
				changed(after)
			}
		},
		DeleteFunc: changed,
	})
}

// tenantOf returns the tenant namespace of an object from the informer. The name of the
// ConfigMap decides, as it does when one is read: a label can be lost.
func (l *Ledger) tenantOf(object any) (string, bool) {
	name, err := cache.DeletionHandlingObjectToName(object)
	if err != nil || name.Namespace != l.system {
		return "", false
	}
	return strings.CutPrefix(name.Name, prefix)
}

// cached is an informer's cache, corrected by what this process knows to be later. Its
// methods take tenant namespaces, and do nothing on nil.
type cached struct {
	informer Informer
	system   string

	mu sync.Mutex
	// latest has an element only where the informer may be behind. What is known of
	// deleted ones stays until there is a new one, because a cache without the ConfigMap
	// may still be about to see how it was created.
	latest map[string]*known
}

// known is the latest that the API server has told this process about a ConfigMap, by
// a read or by the answer to a write. It is replaced, but not changed.
type known struct {
	configMap *corev1.ConfigMap // nil: there is none
	// version is the resourceVersion of configMap; without one, the last that it had. A
	// greater one is a later one.
	version  uint64
	doubtful bool // a write has failed, answers may be out of order, or the versions cannot be compared
}

func knownAs(configMap *corev1.ConfigMap) known {
	version, err := strconv.ParseUint(configMap.ResourceVersion, 10, 64)
	return known{configMap: configMap, version: version, doubtful: err != nil}
}

// get returns the ConfigMap, or nil if there is none, or false if it must be asked for.
func (c *cached) get(tenant string) (*corev1.ConfigMap, bool) {
	if c == nil || !c.informer.HasSynced() {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	latest := c.latest[tenant]
	stored, ok := c.stored(tenant)
	switch {
	case !ok || latest != nil && latest.doubtful:
		return nil, false
	case latest == nil:
		return stored, true
	case stored == nil:
		// Either the cache has not seen it yet, or somebody has deleted it.
		return nil, latest.configMap == nil
	}
	k := knownAs(stored)
	if !k.doubtful && (k.version > latest.version || k.version == latest.version && latest.configMap != nil) {
		delete(c.latest, tenant)
		return stored, true
	}
	return latest.configMap, !k.doubtful
}

// stored returns what the informer has, and false if that is no ConfigMap.
func (c *cached) stored(tenant string) (*corev1.ConfigMap, bool) {
	object, exists, err := c.informer.GetStore().GetByKey(c.system + "/" + Name(tenant))
	if err != nil || !exists {
		return nil, err == nil
	}
	configMap, ok := object.(*corev1.ConfigMap)
	return configMap, ok
}

// ask returns a function that notes the answer to a request that begins now: what is there, nil
// if nothing, or that nobody is sure. Nobody is, either, if another answer came meanwhile.
func (c *cached) ask(tenant string) (answered func(configMap *corev1.ConfigMap, sure bool)) {
	if c == nil {
		return func(*corev1.ConfigMap, bool) {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.latest[tenant]
	var gone known // if nothing is there: what was known, and what the cache showed
	if stored, ok := c.stored(tenant); ok && stored != nil {
		gone = knownAs(stored)
		gone.configMap = nil
	}
	if before != nil {
		gone.version = max(gone.version, before.version)
	}
	return func(configMap *corev1.ConfigMap, sure bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		k := gone
		if configMap != nil {
			k = knownAs(configMap)
		}
		k.doubtful = k.doubtful || !sure || c.latest[tenant] != before
		if k == (known{}) {
			delete(c.latest, tenant)
			return
		}
		c.latest[tenant] = &k
	}
}
