package quota_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

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

func TestEqualIsByAmount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "static and used"), rapidDice(t)
		a, b := s.static, s.used
		if roll.flip() { // the same, spelled anew, and perhaps not quite
			b = corev1.ResourceList{}
			for name, q := range a {
				b[name] = quantityOf(ratOf(q), pick(roll, quantityFormats))
				if roll.rarely(3) {
					b[name] = quantityOf(plus(ratOf(q), ratOf(resource.MustParse("1n"))), resource.DecimalSI)
				}
			}
		}
		want := len(a) == len(b)
		for name, q := range a {
			other, ok := b[name]
			want = want && ok && ratOf(q).Cmp(ratOf(other)) == 0
		}
		if got := quota.Equal(a, b); got != want {
			t.Fatalf("Equal is %v of %s and %s", got, listString(a), listString(b))
		}
		if got := quota.Equal(b, a); got != want {
			t.Fatalf("Equal is %v of %s and %s", got, listString(b), listString(a))
		}
	})
}
