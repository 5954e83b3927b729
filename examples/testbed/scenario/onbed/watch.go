package onbed

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// A watch has caches of what scenarios look at, in all namespaces.
type watch struct {
	namespaces, quotas, pods, vmis, vmims, records, events cache.SharedIndexInformer
}

// newWatch returns when the caches are filled. They are kept true until t ends.
func newWatch(t try.T, client kubernetes.Interface, objects dynamic.Interface) *watch {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(stop)
	some := func(tweak func(*metav1.ListOptions)) informers.SharedInformerFactory {
		return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(tweak))
	}
	core := informers.NewSharedInformerFactory(client, 0).Core().V1()
	w := &watch{
		namespaces: core.Namespaces().Informer(),
		quotas:     core.ResourceQuotas().Informer(),
		pods:       core.Pods().Informer(),
		vmis:       virt.Informer(objects, virt.Instances),
		vmims:      virt.Informer(objects, virt.Migrations),
		records:    some(configmap.Select).Core().V1().ConfigMaps().Informer(),
		events:     some(func(o *metav1.ListOptions) { o.FieldSelector = "source=" + migration.Component }).Core().V1().Events().Informer(),
	}
	require.NoError(t, virt.Watch(ctx, cache.ResourceEventHandlerFuncs{}, w.namespaces, w.quotas, w.pods, w.vmis, w.vmims, w.records, w.events))
	return w
}

// state returns what the caches hold about namespace.
func (w *watch) state(namespace string) scenario.State {
	s := scenario.State{
		Quotas:     held[*corev1.ResourceQuota](w.quotas, namespace),
		Pods:       held[*corev1.Pod](w.pods, namespace),
		VMIs:       held[*kubevirtv1.VirtualMachineInstance](w.vmis, namespace),
		Migrations: held[*kubevirtv1.VirtualMachineInstanceMigration](w.vmims, namespace),
	}
	for _, e := range held[*corev1.Event](w.events, namespace) {
		s.Waits = append(s.Waits, scenario.Waits(&metav1.ObjectMeta{Name: e.InvolvedObject.Name}, e.Reason, e.Message)...)
	}
	if ns, known, _ := w.namespaces.GetStore().GetByKey(namespace); known {
		s.Namespace, _ = ns.(*corev1.Namespace)
	}
	for _, object := range w.records.GetStore().List() {
		if record, ok := object.(*corev1.ConfigMap); ok && record.Name == configmap.Name(namespace) {
			s.Ledger = record
		}
	}
	return s
}

// held returns the objects of namespace, sorted by name.
func held[T metav1.Object](informer cache.SharedIndexInformer, namespace string) []T {
	objects, err := informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil // the index is there
	}
	typed := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			typed = append(typed, t)
		}
	}
	slices.SortFunc(typed, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return typed
}

// Record writes the watch events of the ResourceQuotas, pods, VMIs and VMIMs of the namespace to
// out, as package fake/recording reads them, until the test ends. It fails if an event could not
// be written.
func (c *Cluster) Record(out io.Writer) {
	c.Helper()
	scheme := runtime.NewScheme()
	require.NoError(c, errors.Join(corev1.AddToScheme(scheme), kubevirtv1.AddToScheme(scheme)))
	var mu sync.Mutex
	var failed error
	var begun time.Time
	c.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		require.NoError(c, failed)
	})
	write := func(kind apiwatch.EventType, object any) {
		of, ok := object.(interface {
			runtime.Object
			metav1.Object
		})
		if !ok || of.GetNamespace() != c.namespace {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if begun.IsZero() {
			begun = time.Now()
		}
		line, err := withKind(scheme, of)
		if err == nil {
			err = json.NewEncoder(out).Encode(map[string]any{"t": time.Since(begun).Round(time.Millisecond).Seconds(), "type": kind, "object": line})
		}
		failed = errors.Join(failed, err)
	}
	for _, informer := range []cache.SharedIndexInformer{c.stage.watch.quotas, c.stage.watch.pods, c.stage.watch.vmis, c.stage.watch.vmims} {
		registration := try.Must(informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { write(apiwatch.Added, object) },
			UpdateFunc: func(_, object any) { write(apiwatch.Modified, object) },
			DeleteFunc: func(object any) {
				if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = unknown.Obj
				}
				write(apiwatch.Deleted, object)
			},
		}))(c)
		c.Cleanup(func() { require.NoError(c, informer.RemoveEventHandler(registration)) })
	}
}

// withKind returns a copy of object with its kind, and without managedFields.
func withKind(scheme *runtime.Scheme, object runtime.Object) (runtime.Object, error) {
	kinds, _, err := scheme.ObjectKinds(object)
	if err != nil {
		return nil, err
	}
	object = object.DeepCopyObject()
	object.GetObjectKind().SetGroupVersionKind(kinds[0])
	if accessor, ok := object.(metav1.Object); ok {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}
