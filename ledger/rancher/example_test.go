package rancher_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A controller that knows static limits only raises a limit while a migration runs.
func Example() {
	ctx, clients := context.Background(), fake.New(fake.Config{}).Client("rancher").CoreV1()
	record := memory.New()
	shim, err := rancher.New(rancher.Config{Ledger: record})
	check(err)
	decorated := shim.Client(clients).ResourceQuotas("tenant")
	cores := func(n string) corev1.ResourceQuotaSpec {
		return corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"limits.cpu": resource.MustParse(n)}}
	}
	say := func(whose string, rq *corev1.ResourceQuota, err error) {
		check(err)
		limit := rq.Spec.Hard["limits.cpu"]
		fmt.Println(whose, limit.String())
	}

	rq, err := decorated.Create(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: cores("4")}, metav1.CreateOptions{})
	say("the controller sees", rq, err)
	check(record.Replace(ctx, "tenant", []quota.Migration{{UID: "m1", VMI: "database", State: quota.Charged, Surge: cores("1").Hard}}))
	rq.Spec = cores("6")
	rq, err = decorated.Update(ctx, rq, metav1.UpdateOptions{})
	say("the controller sees", rq, err)
	rq, err = clients.ResourceQuotas("tenant").Get(ctx, "default", metav1.GetOptions{})
	say("Kubernetes enforces", rq, err)
	// Output:
	// the controller sees 4
	// the controller sees 6
	// Kubernetes enforces 7
}

func ExampleLimits() {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Annotations: map[string]string{
		rancher.LimitsAnnotation: `{"limit":{"limitsCpu":"4","extended":{"requests.nvidia.com/gpu":"2","limits.cpu":"9"}}}`,
	}}}
	limits, err := rancher.Limits(ns)
	check(err)
	cpu, gpu := limits["limits.cpu"], limits["requests.nvidia.com/gpu"]
	fmt.Println(cpu.String(), gpu.String())

	ns.Annotations[rancher.LimitsAnnotation] = `{"limit":{"limitsCpu":"-4"}}`
	_, err = rancher.Limits(ns)
	fmt.Println(err)
	// Output:
	// 4 2
	// namespace tenant: field.cattle.io/resourceQuota: limit.limitsCpu: malformed: "-4": it is negative
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
