package rancher

import (
	"time"

	"k8s.io/client-go/tools/cache"
)

// Informer returns an informer of ResourceQuotas whose handlers, store and indexers see
// what [Shim.Shown] says. What is in the cache is not modified, and not copied unless it
// is raised. A transform that is set on it is given what is stored, and so are the
// handlers of informer itself.
func (s *Shim) Informer(informer cache.SharedIndexInformer) cache.SharedIndexInformer {
	return &shownInformer{SharedIndexInformer: informer, shim: s}
}

type shownInformer struct {
	cache.SharedIndexInformer
	shim *Shim
}

func (i *shownInformer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(i.shim.Handler(handler))
}

func (i *shownInformer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(i.shim.Handler(handler), period)
}

func (i *shownInformer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithOptions(i.shim.Handler(handler), options)
}

func (i *shownInformer) GetStore() cache.Store { return i.GetIndexer() }

func (i *shownInformer) GetIndexer() cache.Indexer {
	return i.shim.Indexer(i.SharedIndexInformer.GetIndexer())
}

func (i *shownInformer) AddIndexers(indexers cache.Indexers) error {
	return i.SharedIndexInformer.AddIndexers(i.shim.indexers(indexers))
}

// Handler returns a handler that passes on what [Shim.Shown] says, also of what was deleted
// unseen.
func (s *Shim) Handler(handler cache.ResourceEventHandler) cache.ResourceEventHandler {
	return &shownHandler{handler: handler, shim: s}
}

type shownHandler struct {
	handler cache.ResourceEventHandler
	shim    *Shim
}

func (h *shownHandler) OnAdd(o any, initial bool) { h.handler.OnAdd(h.shim.shownAny(o), initial) }

func (h *shownHandler) OnUpdate(before, after any) {
	h.handler.OnUpdate(h.shim.shownAny(before), h.shim.shownAny(after))
}

func (h *shownHandler) OnDelete(o any) { h.handler.OnDelete(h.shim.shownAny(o)) }

// Indexer returns an indexer of ResourceQuotas that is read as [Shim.Shown] says.
// Functions that are added to it index what is shown.
func (s *Shim) Indexer(indexer cache.Indexer) cache.Indexer {
	return &shownIndexer{Indexer: indexer, shim: s}
}

type shownIndexer struct {
	cache.Indexer
	shim *Shim
}

func (i *shownIndexer) List() []any { return i.shim.shownAnys(i.Indexer.List()) }

func (i *shownIndexer) Get(o any) (any, bool, error) {
	item, exists, err := i.Indexer.Get(o)
	return i.shim.shownAny(item), exists, err
}

func (i *shownIndexer) GetByKey(key string) (any, bool, error) {
	item, exists, err := i.Indexer.GetByKey(key)
	return i.shim.shownAny(item), exists, err
}

func (i *shownIndexer) Index(name string, o any) ([]any, error) {
	items, err := i.Indexer.Index(name, o)
	return i.shim.shownAnys(items), err
}

func (i *shownIndexer) ByIndex(name, value string) ([]any, error) {
	items, err := i.Indexer.ByIndex(name, value)
	return i.shim.shownAnys(items), err
}

func (i *shownIndexer) AddIndexers(indexers cache.Indexers) error {
	return i.Indexer.AddIndexers(i.shim.indexers(indexers))
}

func (s *Shim) indexers(indexers cache.Indexers) cache.Indexers {
	shown := make(cache.Indexers, len(indexers))
	for name, index := range indexers {
		shown[name] = func(o any) ([]string, error) { return index(s.shownAny(o)) }
	}
	return shown
}
