package quota_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

func TestGrowthAboveStatic(t *testing.T) {
	static := listOf(cpu, "4", memory, "8Gi", corev1.ResourcePods, "0", requestsMemory, "12345678901234567890")
	for _, row := range []struct {
		name                     string
		growth, regular, missing corev1.ResourceList
	}{
		{name: "nothing grows", regular: listOf(cpu, "5")},
		{name: "exact fit", growth: listOf(cpu, "1", memory, "2Gi"), regular: listOf(cpu, "3", memory, "6Gi")},
		{name: "a byte too many", growth: listOf(cpu, "1", memory, "2147483649"), regular: listOf(cpu, "3", memory, "6Gi"), missing: listOf(memory, "1")},
		{name: "both too many", growth: listOf(cpu, "1500m", memory, "3Gi"), regular: listOf(cpu, "3", memory, "6Gi"), missing: listOf(cpu, "500m", memory, "1Gi")},
		{name: "regular is above static", growth: listOf(cpu, "1"), regular: listOf(cpu, "5"), missing: listOf(cpu, "2")},
		{name: "another resource is above static", growth: listOf(cpu, "1"), regular: listOf(memory, "9Gi")},
		{name: "no regular usage", growth: listOf(cpu, "5"), missing: listOf(cpu, "1")},
		{name: "a limit of zero", growth: listOf(corev1.ResourcePods, "1"), missing: listOf(corev1.ResourcePods, "1")},
		{name: "no limit", growth: listOf(corev1.ResourceRequestsCPU, "100E")},
		{name: "zero and less", growth: listOf(cpu, "0", memory, "-1Gi"), regular: listOf(cpu, "5", memory, "9Gi")},
		{name: "beyond int64", growth: listOf(requestsMemory, "1"), regular: listOf(requestsMemory, "12345678901234567890"), missing: listOf(requestsMemory, "1")},
	} {
		t.Run(row.name, func(t *testing.T) {
			missing := quota.Migration{Growth: row.growth}.GrowthAboveStatic(static, row.regular)
			require.Truef(t, quota.Equal(row.missing, missing), "%v", missing)
			require.Equal(t, len(row.missing) == 0, missing == nil)
		})
	}
}

// A hot-plug can migrate within the static limits exactly if they leave regular workloads
// what the guest grows by.
func TestGrowthFitsAsRegularWorkloadsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		growth, d := roll.list(s.regime, 2, s.names), s.decide()
		missing := quota.Migration{Growth: growth}.GrowthAboveStatic(s.static, d.Regular)
		require.Equal(t, d.Fits(growth) == nil, missing == nil)
	})
}
