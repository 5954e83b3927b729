package configmap_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	clientset := fake.NewSimpleClientset() // kubernetes.NewForConfig(config)

	factory := informers.NewSharedInformerFactoryWithOptions(clientset, 0,
		informers.WithNamespace("headroom"), informers.WithTweakListOptions(configmap.Select))
	record := configmap.New(clientset.CoreV1(), "headroom",
		configmap.WithInformer(factory.Core().V1().ConfigMaps().Informer()))
	if _, err := record.OnChange(func(string) { /* add the namespace to the queue */ }); err != nil {
		fmt.Println(err)
	}
	factory.Start(ctx.Done())

	err := record.Replace(ctx, "tenant", []quota.Migration{{
		UID:   "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
		VMI:   "database",
		State: quota.Blocked,
		Surge: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1015m")},
	}})
	if err != nil {
		fmt.Println(err)
	}

	// What a person sees:
	written, err := clientset.CoreV1().ConfigMaps("headroom").Get(ctx, "headroom-tenant", metav1.GetOptions{})
	if err != nil {
		fmt.Println(err)
	}
	for key, value := range written.Data {
		fmt.Println(key + ": " + value)
	}

	// Output:
	// 0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001: {
	//   "version": 1,
	//   "uid": "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
	//   "vmi": "database",
	//   "state": "Blocked",
	//   "surge": {
	//     "limits.cpu": "1015m"
	//   }
	// }
}
