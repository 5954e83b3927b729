package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/quota"
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
					c.Advance(10 * time.Minute)
					for i := range bench.moved {
						if phase := phaseOf(c, fmt.Sprint("m", i)); phase != "Succeeded" {
							b.Fatalf("m%d is %s", i, phase)
						}
					}
					quotaWrites, recordWrites = c.Writes("controller", fake.ResourceQuotas), c.Writes("controller", fake.ConfigMaps)
					exposed = c.Exposure("limits.memory")
				}
				b.ReportMetric(float64(quotaWrites), "quota-writes")
				b.ReportMetric(float64(recordWrites), "ledger-writes")
				b.ReportMetric(exposed, "byte-s")
			})
		}
	}
}

// Fifty migrations that start at once are recorded together, and the limits are raised for
// them together. The policy is one that grants them all at the start; by default KubeVirt's
// own limits let them come a few at a time.
func TestFiftyAtOnceCostAHandful(t *testing.T) {
	const vms = 50
	c := crowd(vms, exactly(vms), embedding{policy: quota.Policy{Eager: true}}.program)
	for i := range vms {
		must(c.Migrate("tenant", fmt.Sprint("m", i), fmt.Sprint("vm", i), fake.Outcome{Hang: true}))
	}
	doubled := exactly(2 * vms)
	raised := c.Until(10*time.Second, func() bool { return quota.Equal(c.Quota("tenant", "tenant").Spec.Hard, doubled) })
	require.True(t, raised, "%v", c.Quota("tenant", "tenant").Spec.Hard)
	require.LessOrEqual(t, c.Writes("controller", fake.ConfigMaps), 5)
	require.LessOrEqual(t, c.Writes("controller", fake.ResourceQuotas), 5)
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
