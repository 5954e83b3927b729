// Quickstart is a reconciler with the library in it, on a simulated cluster: a virtual
// machine migrates although its namespace's quota is full.
//
//	go run ./examples/quickstart
//
// The reconciler is all of reconciler.go: the rule, and nothing else. A migration.Controller
// is what a real cluster wants.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	listersv1 "k8s.io/client-go/listers/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run shows a migration without the reconciler, and with it.
func run() error {
	gibibyte := *resource.NewQuantity(1<<30, resource.BinarySI)
	static := corev1.ResourceList{ // what one virtual machine is charged, to the byte
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(1015, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(2773714688, resource.BinarySI),
	}
	cluster := fake.New(fake.Config{Seed: 1})
	if err := cluster.CreateNamespace("tenant", static); err != nil {
		return err
	}
	if err := cluster.CreateVMI(fake.NewVMI("tenant", "vm", 1, gibibyte)); err != nil {
		return err
	}
	cluster.Advance(time.Minute)
	show(cluster, "the virtual machine runs")

	if err := cluster.Migrate("tenant", "move", "vm", fake.Outcome{}); err != nil {
		return err
	}
	cluster.Advance(time.Minute)
	show(cluster, "a minute without the reconciler")

	cluster.Start("reconciler", func(p *fake.Process) fake.Program { return program(p) })
	cluster.Until(time.Minute, func() bool { return phase(cluster) == kubevirtv1.MigrationRunning })
	show(cluster, "with the reconciler")
	cluster.Advance(time.Minute)
	show(cluster, "a minute later")
	return nil
}

// program gives the reconciler what a controller has: a client and the caches of its
// informers.
func program(p *fake.Process) fake.Program {
	r := &reconciler{caches: p.Caches.Migration(), quotas: listersv1.NewResourceQuotaLister(p.Caches[fake.ResourceQuotas]), client: p.Client}
	return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
		return 0, r.reconcile(ctx, namespace)
	}}
}

// show prints what the namespace looks like.
func show(cluster *fake.Cluster, when string) {
	rq := cluster.Quota("tenant", "tenant")
	hard, used := rq.Status.Hard[corev1.ResourceLimitsMemory], rq.Status.Used[corev1.ResourceLimitsMemory]
	fmt.Printf("%-32s  migration: %-10s limit: %10s  used: %10s\n", when, phase(cluster), hard.String(), used.String())
}

func phase(cluster *fake.Cluster) kubevirtv1.VirtualMachineInstanceMigrationPhase {
	if m := cluster.Migration("tenant", "move"); m != nil {
		return m.Status.Phase
	}
	return "none"
}
