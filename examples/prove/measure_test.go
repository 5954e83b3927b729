package main

import (
	"fmt"
	"testing"
	"time"

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
					c := fake.New(fake.Config{Seed: 1})
					must(c.CreateNamespace("tenant", static))
					c.Advance(time.Second)
					for i := range bench.vms {
						must(c.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, *resource.NewQuantity(1<<30, resource.BinarySI))))
					}
					c.Advance(time.Minute)
					c.Start("controller", way.program)
					c.Advance(time.Second)
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
