package migration_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// web is a virtual machine of 1 core and 1Gi, and 270Mi for KubeVirt.
var web = &kubevirtv1.VirtualMachineInstance{
	ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "d4bb487a"},
	Spec: kubevirtv1.VirtualMachineInstanceSpec{Domain: kubevirtv1.DomainSpec{Resources: kubevirtv1.ResourceRequirements{
		Limits: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("1"),
			corev1.ResourceMemory: resource.MustParse("1Gi"),
		},
	}}},
	Status: kubevirtv1.VirtualMachineInstanceStatus{Phase: kubevirtv1.Running},
}

// launcher is a pod that web runs in, or will, if a migration made it.
func launcher(name string, migration types.UID) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(name),
			Labels: map[string]string{
				kubevirtv1.AppLabel:          "virt-launcher",
				kubevirtv1.CreatedByLabel:    string(web.UID),
				kubevirtv1.MigrationJobLabel: string(migration),
			},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(web, kubevirtv1.VirtualMachineInstanceGroupVersionKind)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "compute", Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("1"),
				corev1.ResourceMemory: resource.MustParse("1294Mi"),
			},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// A quota refuses the target pod of a migration. It needs what the source costs once
// more.
func ExampleInFlight() {
	refused := &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Name: "evacuate-web", UID: "34ce9ea8"},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "web"},
		Status: kubevirtv1.VirtualMachineInstanceMigrationStatus{
			Phase: kubevirtv1.MigrationPending,
			Conditions: []kubevirtv1.VirtualMachineInstanceMigrationCondition{{
				Type:   kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota,
				Status: corev1.ConditionTrue,
			}},
		},
	}
	inFlight := migration.InFlight(migration.Snapshot{
		Migrations: []*kubevirtv1.VirtualMachineInstanceMigration{refused},
		VMIs:       []*kubevirtv1.VirtualMachineInstance{web},
		Pods:       []*corev1.Pod{launcher("source", "")},
	})
	for _, m := range inFlight {
		cpu, memory := m.Surge[corev1.ResourceLimitsCPU], m.Surge[corev1.ResourceLimitsMemory]
		fmt.Printf("%s of %s is %s and claims %s cores and %s\n", m.UID, m.VMI, m.State, cpu.String(), memory.String())
	}
	// Output:
	// 34ce9ea8 of web is Blocked and claims 1 cores and 1294Mi
}

// A migration has failed, and its VMIM is deleted already. As long as its target pod
// runs, quota charges it.
func ExampleInFlight_charged() {
	vmi := web.DeepCopy()
	vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID: "34ce9ea8", SourcePod: "source", TargetPod: "target", Completed: true, Failed: true,
	}
	target := launcher("target", "34ce9ea8")
	snapshot := migration.Snapshot{
		VMIs: []*kubevirtv1.VirtualMachineInstance{vmi},
		Pods: []*corev1.Pod{launcher("source", ""), target},
	}
	for _, m := range migration.InFlight(snapshot) {
		// Nil: usage contains all that it claims.
		fmt.Printf("%s of %s is %s and holds all of it: %t\n", m.UID, m.VMI, m.State, m.Held == nil)
	}
	target.Status.Phase = corev1.PodSucceeded
	fmt.Println("then", len(migration.InFlight(snapshot)), "are in flight")
	// Output:
	// 34ce9ea8 of web is Charged and holds all of it: true
	// then 0 are in flight
}
