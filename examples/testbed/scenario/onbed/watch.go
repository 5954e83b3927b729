package onbed

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// A watch has caches of what scenarios look at, in all namespaces.
type watch struct {
	namespaces, quotas, pods, vmis, vmims, configMaps, events cache.SharedIndexInformer
}

// newWatch returns when the caches are filled. They are kept true until ctx is done.
func newWatch(ctx context.Context, client kubernetes.Interface, objects dynamic.Interface) (*watch, error) {
	core := informers.NewSharedInformerFactory(client, 0).Core().V1()
	ledger := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(process.Namespace))
	kubevirt := dynamicinformer.NewDynamicSharedInformerFactory(objects, 0)
	typed := func(resource schema.GroupVersionResource) cache.SharedIndexInformer {
		informer := kubevirt.ForResource(resource).Informer()
		_ = informer.SetTransform(migration.Typed) // fails only for informers that run
		return informer
	}
	told := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = "source=" + migration.Component
	}))
	w := &watch{
		events:     told.Core().V1().Events().Informer(),
		namespaces: core.Namespaces().Informer(),
		quotas:     core.ResourceQuotas().Informer(),
		pods:       core.Pods().Informer(),
		configMaps: ledger.Core().V1().ConfigMaps().Informer(),
		vmis:       typed(virt.Instances),
		vmims:      typed(virt.Migrations),
	}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{w.namespaces, w.quotas, w.pods, w.vmis, w.vmims, w.configMaps, w.events} {
		synced = append(synced, informer.HasSynced)
		go informer.RunWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil, errors.New("the caches are not filled")
	}
	return w, nil
}

// state returns what the caches hold about namespace.
func (w *watch) state(namespace string) (scenario.State, error) {
	s := scenario.State{
		Quotas:     held[*corev1.ResourceQuota](w.quotas, namespace),
		Pods:       held[*corev1.Pod](w.pods, namespace),
		VMIs:       held[*kubevirtv1.VirtualMachineInstance](w.vmis, namespace),
		Migrations: held[*kubevirtv1.VirtualMachineInstanceMigration](w.vmims, namespace),
	}
	for _, e := range held[*corev1.Event](w.events, namespace) {
		s.Waits = append(s.Waits, scenario.Waits(&metav1.ObjectMeta{Name: e.InvolvedObject.Name}, e.Reason, e.Message)...)
	}
	ns, known, err := w.namespaces.GetIndexer().GetByKey(namespace)
	if err != nil {
		return s, err
	}
	if known {
		s.Namespace, _ = ns.(*corev1.Namespace)
	}
	record, known, err := w.configMaps.GetIndexer().GetByKey(process.Namespace + "/" + configmap.Name(namespace))
	if known {
		s.Ledger, _ = record.(*corev1.ConfigMap)
	}
	return s, err
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
