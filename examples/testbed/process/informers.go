package process

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// informers watch what the library reads, and no more.
type informers struct {
	quotas, limitRanges, claims, pods, events, configMaps, vmis, vmims cache.SharedIndexInformer
}

func newInformers(client kubernetes.Interface, objects dynamic.Interface) *informers {
	everywhere := kubeinformers.NewSharedInformerFactory(client, 0).Core().V1()
	some := func(options ...kubeinformers.SharedInformerOption) kubeinformers.SharedInformerFactory {
		return kubeinformers.NewSharedInformerFactoryWithOptions(client, 0, options...)
	}
	kubevirt := dynamicinformer.NewDynamicSharedInformerFactory(objects, 0)
	typed := func(resource schema.GroupVersionResource) cache.SharedIndexInformer {
		informer := kubevirt.ForResource(resource).Informer()
		_ = informer.SetTransform(migration.Typed) // fails only for informers that run
		return informer
	}
	ofVMs := func(options *metav1.ListOptions) { options.LabelSelector = kubevirtv1.AppLabel }
	return &informers{
		quotas:      everywhere.ResourceQuotas().Informer(),
		limitRanges: everywhere.LimitRanges().Informer(),
		claims:      everywhere.PersistentVolumeClaims().Informer(),
		pods:        some(kubeinformers.WithTweakListOptions(ofVMs)).Core().V1().Pods().Informer(),
		events:      some(kubeinformers.WithTweakListOptions(migration.SelectRefusals)).Core().V1().Events().Informer(),
		configMaps: some(kubeinformers.WithNamespace(Namespace), kubeinformers.WithTweakListOptions(configmap.Select)).
			Core().V1().ConfigMaps().Informer(),
		vmis:  typed(virt.Instances),
		vmims: typed(virt.Migrations),
	}
}

func (i *informers) all() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{i.quotas, i.limitRanges, i.claims, i.pods, i.events, i.configMaps, i.vmis, i.vmims}
}

func (i *informers) caches() migration.Caches {
	return migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](i.vmims.GetIndexer()),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](i.vmis.GetIndexer()),
		Pods:        migration.FromIndexer[corev1.Pod](i.pods.GetIndexer()),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](i.limitRanges.GetIndexer()),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](i.claims.GetIndexer()),
		Events:      migration.FromIndexer[corev1.Event](i.events.GetIndexer()),
	}
}

func (i *informers) listQuotas() migration.List[corev1.ResourceQuota] {
	return migration.FromIndexer[corev1.ResourceQuota](i.quotas.GetIndexer())
}

// tenants are the namespaces that have a quota.
func (i *informers) tenants() ([]string, error) {
	return i.quotas.GetIndexer().ListIndexFuncValues(cache.NamespaceIndex), nil
}

// start starts all, and returns when they are synced and handler has been told of what
// there is.
func (i *informers) start(ctx context.Context, handler cache.ResourceEventHandler) error {
	var synced []cache.InformerSynced
	for _, informer := range i.all() {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return err
		}
		synced = append(synced, registration.HasSynced)
		go informer.Run(ctx.Done())
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return errors.New("ended before the caches were synced")
	}
	return nil
}
