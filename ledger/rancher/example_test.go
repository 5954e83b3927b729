package rancher_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger/rancher"
)

func ExampleLimits() {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Annotations: map[string]string{
		rancher.LimitsAnnotation: `{"limit":{"limitsCpu":"4","extended":{"requests.nvidia.com/gpu":"2","limits.cpu":"9"}}}`,
	}}}
	limits, err := rancher.Limits(ns)
	if err != nil {
		panic(err)
	}
	cpu, gpu := limits["limits.cpu"], limits["requests.nvidia.com/gpu"]
	fmt.Println(cpu.String(), gpu.String())

	ns.Annotations[rancher.LimitsAnnotation] = `{"limit":{"limitsCpu":"-4"}}`
	_, err = rancher.Limits(ns)
	fmt.Println(err)
	// Output:
	// 4 2
	// namespace tenant: field.cattle.io/resourceQuota: limit.limitsCpu: malformed: "-4": it is negative
}

func ExampleClean() {
	rq := scaledBy("limits.cpu=5 limits.memory=6337876Ki",
		"harvesterhci.io/migratingUID-5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01", `{"limits.cpu":"1","limits.memory":"1267028Ki"}`)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Annotations: map[string]string{
		rancher.LimitsAnnotation: `{"limit":{"limitsCpu":"4","limitsMemory":"4952Mi"}}`,
	}}}
	cleaned, err := rancher.Clean(rq, ns)
	if err != nil {
		panic(err)
	}
	cpu, memory := cleaned.Spec.Hard["limits.cpu"], cleaned.Spec.Hard["limits.memory"]
	fmt.Println(cpu.String(), memory.String(), cleaned.Annotations)
	// Output:
	// 4 4952Mi map[keep:me]
}
