package migration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
)

var (
	vmimsResource = kubevirtv1.GroupVersion.WithResource("virtualmachineinstancemigrations")
	vmisResource  = kubevirtv1.GroupVersion.WithResource("virtualmachineinstances")
)

// keep is all of a controller: it keeps the quotas of all namespaces right until ctx is
// done.
func keep(ctx context.Context, client kubernetes.Interface, dyn dynamic.Interface) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	refusals := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(migration.SelectRefusals))
	records := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace("headroom"), informers.WithTweakListOptions(configmap.Select))
	kubevirt := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	vmims, vmis := kubevirt.ForResource(vmimsResource).Informer(), kubevirt.ForResource(vmisResource).Informer()
	for _, informer := range []cache.SharedIndexInformer{vmims, vmis} {
		if err := informer.SetTransform(migration.Typed); err != nil {
			return err
		}
	}

	caches := migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](vmims.GetIndexer()),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](vmis.GetIndexer()),
		Pods:        migration.FromIndexer[corev1.Pod](core.Pods().Informer().GetIndexer()),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](core.LimitRanges().Informer().GetIndexer()),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](core.PersistentVolumeClaims().Informer().GetIndexer()),
		Events:      migration.FromIndexer[corev1.Event](refusals.Core().V1().Events().Informer().GetIndexer()),
		Namespace:   migration.FromStore(core.Namespaces().Informer().GetStore()),
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](core.ResourceQuotas().Informer().GetIndexer())
	record := configmap.New(client.CoreV1(), "headroom", configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	writer, err := applier.New(applier.Config{Ledger: record, Quotas: client.CoreV1(), List: quotas, Now: time.Now})
	if err != nil {
		return err
	}
	keeper := migration.Keeper{
		Observer: &migration.Observer{Caches: caches, Ledger: record, Now: time.Now},
		Applier:  writer,
		Nudger: &migration.Nudger{
			Caches: caches, Quotas: quotas, Now: time.Now,
			Patch: func(ctx context.Context, namespace, name string, patch []byte) error {
				_, err := dyn.Resource(vmimsResource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			},
		},
	}

	namespaces := core.Namespaces().Informer().GetStore()
	l, err := loop.New(loop.Config{
		Look: keeper.Keep, Now: time.Now, Urgent: migration.InProgress,
		Namespaces: func() ([]string, error) { return namespaces.ListKeys(), nil },
	})
	if err != nil {
		return err
	}
	for _, informer := range []cache.SharedIndexInformer{
		vmims, vmis, core.Pods().Informer(), core.LimitRanges().Informer(), core.PersistentVolumeClaims().Informer(),
		core.ResourceQuotas().Informer(), refusals.Core().V1().Events().Informer(),
	} {
		if _, err := informer.AddEventHandler(l.Handler(migration.Namespace)); err != nil {
			return err
		}
	}
	if _, err := record.OnChange(l.Add); err != nil {
		return err
	}
	for _, f := range []informers.SharedInformerFactory{factory, refusals, records} {
		f.Start(ctx.Done())
		f.WaitForCacheSync(ctx.Done())
	}
	kubevirt.Start(ctx.Done())
	kubevirt.WaitForCacheSync(ctx.Done())
	l.Run(ctx)
	return nil
}

// raw is object as a dynamic client receives it.
func raw(object any, kind schema.GroupVersionKind) *unstructured.Unstructured {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &u.Object); err != nil {
		panic(err)
	}
	u.SetGroupVersionKind(kind)
	return u
}

// A whole controller, on the informers of client-go.
func ExampleKeeper() {
	// A namespace in which quota has refused the target pod of a migration.
	r := recordingOf(nil, "basic")
	r.until(2 * time.Second)
	s := r.cache.Snapshot(r.namespace)
	objects := []runtime.Object{r.cache.Quotas(r.namespace)[0], &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}}
	for _, pod := range s.Pods {
		objects = append(objects, pod)
	}
	client := fake.NewClientset(objects...)
	dyn := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{
			vmimsResource: "VirtualMachineInstanceMigrationList", vmisResource: "VirtualMachineInstanceList",
		},
		raw(s.VMIs[0], kubevirtv1.VirtualMachineInstanceGroupVersionKind),
		raw(s.Migrations[0], kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind))

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- keep(ctx, client, dyn) }()
	for {
		rq, err := client.CoreV1().ResourceQuotas(r.namespace).Get(ctx, "q", metav1.GetOptions{})
		if err != nil {
			fmt.Println(err)
			break
		}
		if raised := rq.Spec.Hard["limits.memory"]; raised.String() != "2773714688" {
			fmt.Println("2773714688 ->", raised.String())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// 2773714688 -> 5547429376
	// <nil>
}
