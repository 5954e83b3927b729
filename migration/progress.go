package migration

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// pageSize is how many migrations are listed at a time.
const pageSize = 1000

// Progress is what a reflector of all migrations fills. It remembers those in progress, and
// forgets the others at once: KubeVirt keeps up to five of each VMI that are over, so in a
// large cluster there are hundreds of thousands.
type progress struct {
	enqueue func(namespace string)
	now     func() time.Time
	synced  atomic.Bool

	mu          sync.Mutex
	byNamespace map[string]map[string]struct{} // names of those in progress
	recent      map[string]struct{}            // namespaces of those that were over when they were listed, and are not old
}

// inProgress reports whether a migration is in progress, or may be: KubeVirt takes its
// finalizer away when it is over.
func inProgress(object metav1.Object) bool {
	if u, ok := object.(*unstructured.Unstructured); ok {
		phase, _, err := unstructured.NestedString(u.Object, "status", "phase")
		return err != nil || phase != string(kubevirtv1.MigrationSucceeded) && phase != string(kubevirtv1.MigrationFailed)
	}
	return len(object.GetFinalizers()) > 0
}

// mayBeBusy reports whether a migration of namespace is in progress, or was not long before this
// process could see it.
func (p *progress) mayBeBusy(namespace string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, isRecent := p.recent[namespace]
	return isRecent || len(p.byNamespace[namespace]) > 0
}

// looked forgets what was over in namespace, because its pods are looked at now.
func (p *progress) looked(namespace string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.recent, namespace)
}

// Add implements cache.ReflectorStore.
func (p *progress) Add(object any) error { return p.Update(object) }

// Update implements cache.ReflectorStore.
func (p *progress) Update(object any) error {
	o, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	if !inProgress(o) {
		return p.Delete(object)
	}
	p.mu.Lock()
	isNew := p.add(o)
	p.mu.Unlock()
	if isNew {
		p.enqueue(o.GetNamespace())
	}
	return nil
}

// add remembers o, and reports whether it is new. The caller holds the lock.
func (p *progress) add(o metav1.Object) bool {
	names := p.byNamespace[o.GetNamespace()]
	if names == nil {
		names = map[string]struct{}{}
		p.byNamespace[strings.Clone(o.GetNamespace())] = names
	}
	_, known := names[o.GetName()]
	names[strings.Clone(o.GetName())] = struct{}{}
	return !known
}

// Delete implements cache.ReflectorStore.
func (p *progress) Delete(object any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return err
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	names := p.byNamespace[namespace]
	delete(names, name)
	if len(names) == 0 {
		delete(p.byNamespace, namespace)
	}
	return nil
}

// Replace implements cache.ReflectorStore. The objects are those that were listed.
func (p *progress) Replace(objects []any, _ string) error {
	p.mu.Lock()
	before := p.byNamespace
	p.byNamespace, p.recent = map[string]map[string]struct{}{}, map[string]struct{}{}
	for _, object := range objects {
		o, err := meta.Accessor(object)
		if err != nil {
			p.mu.Unlock()
			return err
		}
		if inProgress(o) {
			p.add(o)
		} else {
			p.recent[strings.Clone(o.GetNamespace())] = struct{}{}
		}
	}
	changed := map[string]struct{}{}
	for _, namespaces := range []map[string]map[string]struct{}{before, p.byNamespace} {
		for namespace := range namespaces {
			changed[namespace] = struct{}{}
		}
	}
	for namespace := range p.recent {
		changed[namespace] = struct{}{}
	}
	p.mu.Unlock()
	p.synced.Store(true)
	for namespace := range changed {
		p.enqueue(namespace)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (p *progress) Resync() error { return nil }

// listed reports whether Replace has a use for a migration.
func (p *progress) listed(o metav1.Object) bool {
	return inProgress(o) || p.now().Sub(o.GetCreationTimestamp().Time) < lingerTime
}

// follow keeps p up to date. Where there is a client of metadata, the migrations themselves
// are not read.
func (i *informers) follow(ctx context.Context) {
	kubeVirt, metadata := i.controller.clients.KubeVirt, i.controller.clients.Metadata
	source := from(kubeVirt.Resource(migrationsResource), nil)
	if metadata != nil {
		source = from(metadata.Resource(migrationsResource), nil)
	}
	page := source.ListWithContextFunc
	source.ListWithContextFunc = func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return listPages(ctx, options, page, i.progress.listed)
	}
	i.reflect(ctx, migrationsKind, i.progress, source, nil)
}

// listPages lists page by page what keep selects, so that there is never more in memory than
// a page of the others.
func listPages(ctx context.Context, options metav1.ListOptions, list func(context.Context, metav1.ListOptions) (runtime.Object, error), keep func(metav1.Object) bool) (runtime.Object, error) {
	all := &metav1.List{}
	options.Limit, options.ResourceVersion, options.ResourceVersionMatch = pageSize, "", ""
	for {
		page, err := list(ctx, options)
		if err != nil {
			return nil, err
		}
		err = meta.EachListItem(page, func(object runtime.Object) error {
			o, err := meta.Accessor(object)
			if err == nil && keep(o) {
				all.Items = append(all.Items, runtime.RawExtension{Object: object.DeepCopyObject()})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		of, err := meta.ListAccessor(page)
		if err != nil {
			return nil, err
		}
		all.ResourceVersion, options.Continue = of.GetResourceVersion(), of.GetContinue()
		if options.Continue == "" {
			return all, nil
		}
	}
}
