package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/fake"
)

func Example_main() {
	main()
	// Output:
	// the virtual machine runs          migration: none       limit: 2773714688  used: 2773714688
	// a minute without the reconciler   migration: Pending    limit: 2773714688  used: 2773714688
	// with the reconciler               migration: Running    limit: 5547429376  used: 5547429376
	// a minute later                    migration: Succeeded  limit: 2773714688  used: 2773714688
}

// The reconciler breaks no invariant of the cluster, whatever the timing, although it
// crashes and its writes conflict.
func TestReconciler(t *testing.T) {
	for seed := range uint64(20) {
		static := corev1.ResourceList{"limits.cpu": resource.MustParse("3045m"), "limits.memory": resource.MustParse("8321144064")}
		cluster := fake.New(fake.Config{Seed: seed})
		require.NoError(t, cluster.CreateNamespace("tenant", static))
		for i := range 3 {
			require.NoError(t, cluster.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
		}
		cluster.Advance(time.Minute)
		cluster.Inject(cluster.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		cluster.Start("reconciler", func(p *fake.Process) fake.Program { return program(p) })
		cluster.Drain("node01")
		cluster.Advance(time.Hour)
		require.Empty(t, cluster.Finish(), "seed %d", seed)
	}
}
