package quota_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

func TestEqual(t *testing.T) {
	for _, row := range []struct {
		name string
		a, b corev1.ResourceList
		want bool
	}{
		{"nil and nil", nil, nil, true},
		{"nil and empty", nil, corev1.ResourceList{}, true},
		{"the same", listOf(cpu, "1", memory, "4952Mi"), listOf(cpu, "1", memory, "4952Mi"), true},
		{"spelled differently", listOf(cpu, "1"), listOf(cpu, "1000m"), true},
		{"in other formats", listOf(memory, "1Gi"), listOf(memory, "1073741824"), true},
		{"different", listOf(cpu, "1"), listOf(cpu, "1001m"), false},
		{"different by a nano", listOf(cpu, "1"), listOf(cpu, "1000000001n"), false},
		{"one has more", listOf(cpu, "1"), listOf(cpu, "1", memory, "1"), false},
		{"other resources", listOf(cpu, "1"), listOf(memory, "1"), false},
		{"absent and zero", corev1.ResourceList{}, listOf(cpu, "0"), false},
		{"nil and zero", nil, listOf(cpu, "0"), false},
		{"absent and zero, as many", listOf(cpu, "0"), listOf(memory, "0"), false},
		{"zeros", listOf(cpu, "0"), listOf(cpu, "0Mi"), true},
		{"negative", listOf(cpu, "-1"), listOf(cpu, "-1000m"), true},
		{"negative is not zero here", listOf(cpu, "-1"), listOf(cpu, "0"), false},
		{"int64 and inf.Dec inside", listOf(cpu, "9223372036854775807"), listOf(cpu, 9223372036854775807), true},
		{"beyond int64", listOf(cpu, "100E"), listOf(cpu, "100000P"), true},
		{"beyond int64, in different forms", listOf(cpu, "100E"), listOf(cpu, "100000000000000000000"), true},
		{"beyond int64, different", listOf(cpu, "12345678901234567890"), listOf(cpu, "12345678901234567891"), false},
		{"the same in the low 64 bits", listOf(cpu, "18446744073709551617"), listOf(cpu, "1"), false},
		{"zero and what Value calls zero", listOf(cpu, "0"), listOf(cpu, "100E"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, quota.Equal(row.a, row.b))
			require.Equal(t, row.want, quota.Equal(row.b, row.a))
		})
	}
}
