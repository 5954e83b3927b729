package main

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

var (
	vmims = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	vmis  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
)

// watched are the informers, one for each kind that is read.
type watched struct {
	quotas, limitRanges, pods, claims, events cache.SharedIndexInformer
	migrations, vmis                          cache.SharedIndexInformer
	namespaces                                cache.SharedIndexInformer
	ledger                                    cache.SharedIndexInformer // ConfigMaps of the system namespace
}

func (w *watched) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{w.quotas, w.limitRanges, w.pods, w.claims, w.events, w.migrations, w.vmis, w.namespaces, w.ledger}
}

// newWatched makes the informers. KubeVirt's kinds come through the dynamic client, so
// that no client of KubeVirt is needed.
func newWatched(client kubernetes.Interface, kubeVirt dynamic.Interface, system string, s shard) (*watched, error) {
	plain := informers.NewSharedInformerFactory(client, 0).Core().V1()
	ofVMs := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = kubevirtv1.AppLabel + " in (virt-launcher,hotplug-disk)"
	})).Core().V1()
	refusals := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(migration.SelectRefusals)).Core().V1()
	ledger := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(system), informers.WithTweakListOptions(configmap.Select)).Core().V1()
	dynamically := dynamicinformer.NewDynamicSharedInformerFactory(kubeVirt, 0)

	w := &watched{
		quotas:      plain.ResourceQuotas().Informer(),
		limitRanges: plain.LimitRanges().Informer(),
		pods:        ofVMs.Pods().Informer(),
		claims:      plain.PersistentVolumeClaims().Informer(),
		namespaces:  plain.Namespaces().Informer(),
		events:      refusals.Events().Informer(),
		migrations:  dynamically.ForResource(vmims).Informer(),
		vmis:        dynamically.ForResource(vmis).Informer(),
		ledger:      ledger.ConfigMaps().Informer(),
	}
	for _, slim := range []struct {
		informer cache.SharedIndexInformer
		empty    func() any
		next     cache.TransformFunc
	}{
		{w.quotas, func() any { return &corev1.ResourceQuota{} }, nil},
		{w.limitRanges, func() any { return &corev1.LimitRange{} }, nil},
		{w.pods, func() any { return &corev1.Pod{} }, nil},
		{w.claims, func() any { return &corev1.PersistentVolumeClaim{} }, nil},
		{w.events, func() any { return &corev1.Event{} }, nil},
		{w.migrations, func() any { return &kubevirtv1.VirtualMachineInstanceMigration{} }, migration.Typed},
		{w.vmis, func() any { return &kubevirtv1.VirtualMachineInstance{} }, migration.Typed},
	} {
		if err := slim.informer.SetTransform(s.slim(slim.empty, slim.next)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// caches are what the informers hold.
func (w *watched) caches() migration.Caches {
	return migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](w.migrations.GetIndexer()),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](w.vmis.GetIndexer()),
		Pods:        migration.FromIndexer[corev1.Pod](w.pods.GetIndexer()),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](w.limitRanges.GetIndexer()),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](w.claims.GetIndexer()),
		Events:      migration.FromIndexer[corev1.Event](w.events.GetIndexer()),
		Namespace:   migration.FromStore(w.namespaces.GetStore()),
	}
}

// listen gives each informer the handler of the namespace that its objects concern.
func (w *watched) listen(handler func(concerned func(object any) string) cache.ResourceEventHandler) error {
	concerned := map[cache.SharedIndexInformer]func(object any) string{w.quotas: namespaceOf}
	for _, informer := range []cache.SharedIndexInformer{w.limitRanges, w.pods, w.claims, w.events, w.migrations, w.vmis} {
		concerned[informer] = migration.Namespace
	}
	for informer, namespace := range concerned {
		if _, err := informer.AddEventHandler(handler(namespace)); err != nil {
			return err
		}
	}
	return nil
}

// namespaceOf returns the namespace of any object, also of one whose deletion was missed.
func namespaceOf(object any) string {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return ""
	}
	namespace, _, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return ""
	}
	return namespace
}
