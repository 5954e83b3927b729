package amounts_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota/amounts"
)

func TestAmounts(t *testing.T) {
	for _, texts := range [][2]string{{"1Gi", "2Gi"}, {"12345678901234567890", "12345678901234567891"}, {"100E", "100001P"}} {
		a, b := resource.MustParse(texts[0]), resource.MustParse(texts[1])
		zero := resource.Quantity{}
		for name, results := range map[string][2]resource.Quantity{
			"min":   {amounts.Min(b, a), a},
			"max":   {amounts.Max(a, b), b},
			"minus": {amounts.Minus(amounts.Plus(a, b), b), a},
			"zero":  {amounts.Minus(a, b), zero},
		} {
			require.Zero(t, results[0].Cmp(results[1]), "%s of %v", name, texts)
			results[0].Add(resource.MustParse("1"))
			require.Equal(t, texts[0], a.String(), "%s shares memory", name)
			require.Equal(t, texts[1], b.String(), "%s shares memory", name)
		}
	}
}

func TestLists(t *testing.T) {
	a := corev1.ResourceList{"pods": resource.MustParse("2"), "cpu": resource.MustParse("1500m")}
	require.Equal(t, "cpu=1500m, pods=2", amounts.Text(a, ", "))
	require.Equal(t, "cpu=3 pods=4", amounts.Text(amounts.Each(a, a, amounts.Plus), " "))
	require.True(t, amounts.Exceeds(a, nil))
	require.False(t, amounts.Exceeds(a, a))
	require.False(t, amounts.Exceeds(nil, a))
}
