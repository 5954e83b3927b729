package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/fake"
)

// BenchmarkMigrations measures writes to the API server, and the room that regular
// workloads could have taken, in byte seconds of limits.memory. Its times mean nothing.
func BenchmarkMigrations(b *testing.B) {
	for _, bench := range []struct {
		name              string
		vms, spare, moved int
	}{{"fits", 2, 1, 1}, {"blocked", 2, 0, 1}, {"drain50", 50, 0, 50}} {
		static := exactly(int64(bench.vms + bench.spare))
		for _, way := range []struct {
			name    string
			program func(*fake.Process) fake.Program
		}{{"headroom", embedding{}.program}, {"byEvents", byEvents{static: static, quota: "tenant"}.program}} {
			b.Run(bench.name+"/"+way.name, func(b *testing.B) {
				var quotaWrites, recordWrites int
				var exposed float64
				for b.Loop() {
					c := crowd(bench.vms, static, way.program)
					for i := range bench.moved {
						must(c.Migrate("tenant", fmt.Sprint("m", i), fmt.Sprint("vm", i), fake.Outcome{}))
					}
					exposed, _ = room(c, 10*time.Minute, int64(bench.spare))
					for i := range bench.moved {
						if phase := phaseOf(c, fmt.Sprint("m", i)); phase != "Succeeded" {
							b.Fatalf("m%d is %s", i, phase)
						}
					}
					quotaWrites, recordWrites = c.Writes("controller", fake.ResourceQuotas), c.Writes("controller", fake.ConfigMaps)
				}
				b.ReportMetric(float64(quotaWrites), "quota-writes")
				b.ReportMetric(float64(recordWrites), "ledger-writes")
				b.ReportMetric(exposed, "byte-s")
			})
		}
	}
}

// Of fifty migrations that start at once, all get their target pods, at a handful of writes
// for each, and room is open for a few at a time.
func TestFiftyAtOnce(t *testing.T) {
	const vms = 50
	drain := func(program func(*fake.Process) fake.Program) (c *fake.Cluster, exposed, most float64) {
		c = crowd(vms, exactly(vms), program)
		for i := range vms {
			must(c.Migrate("tenant", fmt.Sprint("m", i), fmt.Sprint("vm", i), fake.Outcome{}))
		}
		exposed, most = room(c, 10*time.Minute, 0)
		for i := range vms {
			require.EqualValues(t, "Succeeded", phaseOf(c, fmt.Sprint("m", i)))
		}
		return c, exposed, most
	}
	c, exposed, most := drain(embedding{}.program)
	require.LessOrEqual(t, c.StatusWrites("controller", fake.ResourceQuotas), 3*vms)
	require.LessOrEqual(t, c.Writes("controller", fake.ConfigMaps), 5*vms)
	require.Less(t, most, 5.1, "virtual machines: KubeVirt runs five migrations at a time")

	_, old, most := drain(byEvents{static: exactly(vms), quota: "tenant"}.program)
	require.Greater(t, most, 20.0, "virtual machines")
	require.Greater(t, old, 20*exposed)
}

// In a namespace in which twenty pods end each second, and each recount resets the limits,
// what a charged migration needs is written again at most twice a second. The mutant shows
// that these recounts would cost more.
func TestBusyNamespace(t *testing.T) {
	taken := mutants[slices.IndexFunc(mutants, func(m mutant) bool { return m.name == "taken" })].embedding
	for name, test := range map[string]struct {
		program func(*fake.Process) fake.Program
		atMost  bool
	}{"headroom": {embedding{}.program, true}, "without a memory": {taken.program, false}} {
		t.Run(name, func(t *testing.T) {
			const seconds = 10
			c := crowd(2, exactly(4), test.program)
			must(c.Migrate("tenant", "m", "vm0", fake.Outcome{Hang: true}))
			c.Advance(30 * time.Second)
			before := c.StatusWrites("controller", fake.ResourceQuotas)
			for range 20 * seconds {
				require.NoError(t, tenant{Cluster: c, namespace: "tenant"}.createPod(corev1.ResourceList{corev1.ResourceCPU: milli(10), corev1.ResourceMemory: *resource.NewQuantity(1<<20, resource.BinarySI)}))
				c.Advance(50 * time.Millisecond)
				require.NoError(t, tenant{c, "tenant", func(string, int) int { return 0 }}.deletePod())
			}
			writes := c.StatusWrites("controller", fake.ResourceQuotas) - before
			require.Equal(t, test.atMost, writes <= 2*seconds, "%d writes", writes)
		})
	}
}

// room lets d pass, and returns the room that regular workloads could have taken and should
// not have, in byte seconds of limits.memory and at most in virtual machines. Spare is for
// how many virtual machines the static limits have room that is theirs.
func room(c *fake.Cluster, d time.Duration, spare int64) (exposed, most float64) {
	const vm = 2773714688
	free, since := 0.0, c.Now()
	c.Until(d, func() bool {
		exposed += free * c.Now().Sub(since).Seconds()
		rq := c.Quota("tenant", "tenant")
		hard, used := rq.Status.Hard["limits.memory"], rq.Status.Used["limits.memory"]
		free, since = max(0, hard.AsApproximateFloat64()-used.AsApproximateFloat64()-float64(spare*vm)), c.Now()
		most = max(most, free/vm)
		return false
	})
	return exposed, most
}

// crowd is a namespace with so many running virtual machines, a quota, and a controller.
func crowd(vms int, static corev1.ResourceList, program func(*fake.Process) fake.Program) *fake.Cluster {
	c := fake.New(fake.Config{Seed: 1})
	must(c.CreateNamespace("tenant", static))
	c.Advance(time.Second)
	for i := range vms {
		must(c.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, *resource.NewQuantity(1<<30, resource.BinarySI))))
	}
	c.Advance(time.Minute)
	c.Start("controller", program)
	c.Advance(time.Second)
	return c
}
