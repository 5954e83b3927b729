package fake_test

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// exactly is what one VM of one core and 1Gi is charged, so that its quota is full.
var exactly = corev1.ResourceList{"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("2773714688")}

// reconciler is the code under test: it enforces what the limits of a quota must be.
func reconciler(p *fake.Process) fake.Program {
	return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
		quotas := p.Client.CoreV1().ResourceQuotas(namespace)
		rq, err := quotas.Get(ctx, "tenant", metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		inFlight := migration.InFlight(p.Caches.Snapshot(namespace))
		hard := quota.Effective(rq.Spec.Hard, inFlight, rq.Status.Used)
		if quota.Equal(hard, rq.Status.Hard) {
			return 0, nil
		}
		rq.Status.Hard = hard
		_, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
		return 0, err
	}}
}

// A full quota refuses the target pod of a migration. The reconciler makes room for it,
// and takes the room back.
func Example() {
	cluster := fake.New(fake.Config{Seed: 1})
	check(cluster.CreateNamespace("tenant", exactly))
	check(cluster.CreateVMI(fake.NewVMI("tenant", "vm", 1, resource.MustParse("1Gi"))))
	cluster.Start("embedder", reconciler)
	cluster.Advance(time.Minute)

	check(cluster.Migrate("tenant", "move", "vm", fake.Outcome{}))
	cluster.Advance(time.Minute)

	fmt.Println(cluster.Migration("tenant", "move").Status.Phase)
	memory := cluster.Quota("tenant", "tenant").Status.Hard["limits.memory"]
	fmt.Println("the limit is", memory.String())
	fmt.Println("violations:", cluster.Finish())
	// Output:
	// Succeeded
	// the limit is 2773714688
	// violations: []
}

// The reconciler may crash before any of its calls to the API server.
func ExampleCluster_Inject() {
	runs := 0
	for crashed := true; crashed; runs++ {
		cluster := fake.New(fake.Config{Seed: 1})
		check(cluster.CreateNamespace("tenant", exactly))
		check(cluster.CreateVMI(fake.NewVMI("tenant", "vm", 1, resource.MustParse("1Gi"))))
		cluster.Advance(time.Minute)
		check(cluster.Migrate("tenant", "move", "vm", fake.Outcome{}))
		crashed = false
		cluster.Inject(func(call fake.Call) fake.Fault {
			if call.Number != runs+1 {
				return fake.NoFault
			}
			crashed = true
			return fake.Crash
		})
		cluster.Start("embedder", reconciler)
		cluster.Advance(time.Hour)
		for _, violation := range cluster.Finish() {
			fmt.Println(violation)
		}
	}
	fmt.Println("it crashed at every call, without harm:", runs > 10)
	// Output:
	// it crashed at every call, without harm: true
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
