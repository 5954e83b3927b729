package rancher_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// A list from the cache costs nothing where nothing is raised.
func BenchmarkShownAll(b *testing.B) {
	s := newStore(b)
	for _, n := range []int{1, 10, 100, 1000} {
		plain, high := make([]*corev1.ResourceQuota, n), make([]*corev1.ResourceQuota, n)
		for i := range n {
			plain[i], high[i] = quotaOf("limits.cpu=4 limits.memory=8Gi"), raised("limits.cpu=4 limits.memory=8Gi", "limits.cpu=5 limits.memory=10Gi")
		}
		b.Run(fmt.Sprintf("static/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.shim.ShownAll(plain)
			}
		})
		b.Run(fmt.Sprintf("raised/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.shim.ShownAll(high)
			}
		})
	}
}

func BenchmarkStored(b *testing.B) {
	for _, n := range []int{0, 1, 10, 100, 1000} {
		s := newStore(b)
		var inFlight []quota.Migration
		for i := range n {
			inFlight = append(inFlight, charged(types.UID(fmt.Sprintf("m%04d", i)), "limits.cpu=1015m limits.memory=2773714688"))
		}
		s.inFlight(inFlight...)
		rq := quotaOf("limits.cpu=4 limits.memory=8Gi")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := s.shim.Stored(ctx, rq)
				require.NoError(b, err)
			}
		})
	}
}
