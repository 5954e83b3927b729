package quota_test

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
)

// A reconciler knows the tenant's static limits and the migrations in flight. It
// asks what spec.hard must be now, and writes only if that is not what is there.
func ExampleEffective() {
	static := corev1.ResourceList{
		corev1.ResourceLimitsCPU:    resource.MustParse("30"),
		corev1.ResourceLimitsMemory: resource.MustParse("60Gi"),
	}
	surge := corev1.ResourceList{
		corev1.ResourceLimitsCPU:    resource.MustParse("4015m"),
		corev1.ResourceLimitsMemory: resource.MustParse("8940039936"),
	}
	reconcile := func(rq *corev1.ResourceQuota, migrations []quota.Migration) {
		hard := quota.Effective(static, migrations, rq.Status.Used)
		if quota.Equal(hard, rq.Spec.Hard) {
			fmt.Println("nothing to do")
			return
		}
		rq.Spec.Hard = hard // and update it in the cluster
		fmt.Println("cpu", hard.Name(corev1.ResourceLimitsCPU, resource.DecimalSI),
			"memory", hard.Name(corev1.ResourceLimitsMemory, resource.BinarySI))
	}

	rq := &corev1.ResourceQuota{
		Spec: corev1.ResourceQuotaSpec{Hard: static},
		Status: corev1.ResourceQuotaStatus{Used: corev1.ResourceList{
			corev1.ResourceLimitsCPU:    resource.MustParse("28405m"),
			corev1.ResourceLimitsMemory: resource.MustParse("62820279552"),
		}},
	}
	// One target pod is charged, another one was refused.
	migrations := []quota.Migration{
		{UID: "a", State: quota.Charged, Surge: surge},
		{UID: "b", State: quota.Blocked, Surge: surge},
	}
	reconcile(rq, migrations)
	reconcile(rq, migrations)
	reconcile(rq, nil) // both are over

	// Output:
	// cpu 38030m memory 82304589312
	// nothing to do
	// cpu 30 memory 60Gi
}

// With a budget, migrations wait for each other.
func ExamplePolicy_Decide() {
	gibibytes := func(n int64) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(n<<30, resource.BinarySI)}
	}
	policy := quota.Policy{Budget: gibibytes(16)}
	decision := policy.Decide(gibibytes(64), []quota.Migration{
		{UID: "a", VMI: "web", State: quota.Blocked, Surge: gibibytes(8)},
		{UID: "b", VMI: "mail", State: quota.Blocked, Surge: gibibytes(12)},
		{UID: "c", VMI: "database", State: quota.Blocked, Surge: gibibytes(8), Priority: 100},
		{UID: "d", VMI: "warehouse", State: quota.Blocked, Surge: gibibytes(24)},
	}, gibibytes(60))

	fmt.Println("limits.memory:", decision.Hard.Name(corev1.ResourceLimitsMemory, resource.BinarySI))
	fmt.Println("granted:", decision.Granted)
	for _, deferral := range decision.Deferred {
		fmt.Printf("deferred: %s, %s, misses %s\n", deferral.UID, deferral.Reason,
			deferral.Missing.Name(corev1.ResourceLimitsMemory, resource.BinarySI))
	}

	// Output:
	// limits.memory: 80Gi
	// granted: [a c]
	// deferred: b, BudgetUsed, misses 12Gi
	// deferred: d, BudgetExceeded, misses 8Gi
}

// An admission webhook keeps regular workloads out of the headroom of a migration.
func ExampleDecision_Fits() {
	memory := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse(amount)}
	}
	decision := quota.Policy{}.Decide(memory("64Gi"), []quota.Migration{
		{UID: "a", State: quota.Blocked, Surge: memory("16Gi")},
	}, memory("60Gi"))

	fmt.Println(decision.Fits(memory("4Gi")))

	err := decision.Fits(memory("8Gi")) // the quota itself has room for it, but not for both
	var exceeded *quota.ExceededError
	if errors.As(err, &exceeded) {
		fmt.Println(exceeded.Resource, "requested:", exceeded.Requested.String(), "available:", exceeded.Available.String())
	}

	// Output:
	// <nil>
	// limits.memory requested: 8Gi available: 4Gi
}

// What quota charges for a pod is what its migration charges twice.
func ExampleFootprint() {
	restarts := corev1.ContainerRestartPolicyAlways
	resources := func(cpu, memory string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Limits: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse(cpu),
			corev1.ResourceMemory: resource.MustParse(memory),
		}}
	}
	launcher := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{
			{Name: "guest-console-log", RestartPolicy: &restarts, Resources: resources("15m", "60M")},
		},
		Containers: []corev1.Container{
			{Name: "compute", Resources: resources("1", "2713714688")},
		},
	}}

	footprint := quota.Footprint(launcher)
	fmt.Println("cpu", footprint.Name(corev1.ResourceLimitsCPU, resource.DecimalSI),
		"memory", footprint.Name(corev1.ResourceLimitsMemory, resource.DecimalSI))

	// Output:
	// cpu 1015m memory 2773714688
}
