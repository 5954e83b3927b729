package spelling_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/ledger/internal/spelling"
)

func TestExactIsReadAsItWas(t *testing.T) {
	beyond := *resource.NewQuantity(math.MaxInt64, resource.BinarySI)
	beyond.Add(resource.MustParse("1")) // 8Ei, which is read as one less
	for _, q := range []resource.Quantity{
		beyond, resource.MustParse("8Ei"), resource.MustParse("-8Ei"), resource.MustParse("1n"), resource.MustParse("4952Mi"),
		resource.MustParse("100E"), resource.MustParse("1e3"), resource.MustParse("12345678901234567890123"),
		{},
	} {
		exact := spelling.Exact(q)
		read, err := spelling.Parse(exact.String())
		require.NoError(t, err)
		require.Zero(t, read.Cmp(q), "%s was read as %s", q.String(), read.String())
	}
	kept := spelling.Exact(resource.MustParse("4952Mi"))
	require.Equal(t, "4952Mi", kept.String())

	big := resource.MustParse("12345678901234567890123")
	other := spelling.Exact(big)
	other.Add(resource.MustParse("1"))
	require.Equal(t, "12345678901234567890123", big.String())
}

func TestParseEnds(t *testing.T) {
	for text, valid := range map[string]bool{
		"1e99": true, "1E": true, "100E": true, "1e-09": true, "8Ei": true,
		"1e999999999": false, "1E-999999999": false, "1e100": false, "": false, "x": false,
		strings.Repeat("1", 64): true, strings.Repeat("1", 65): false,
	} {
		_, err := spelling.Parse(text)
		require.Equal(t, valid, err == nil, "%s: %v", text, err)
	}
}
