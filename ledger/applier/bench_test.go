package applier_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// BenchmarkApplyNothingToDo is one Apply that finds everything as it must be, with a
// cache of quotas and a ledger in memory.
func BenchmarkApplyNothingToDo(b *testing.B) {
	quiet := []*corev1.ResourceQuota{
		quotaIn("tenant", "a", "limits.cpu=4 limits.memory=8Gi"),
		quotaIn("tenant", "b", "configmaps=10"),
	}
	for _, rq := range quiet {
		rq.Status.Hard = rq.Spec.Hard
	}
	b.Run("no migrations", func(b *testing.B) { benchmarkApply(b, nil, quiet) })
	for _, n := range []int{1, 10, 100, 1000} {
		inFlight := make([]quota.Migration, n)
		for i := range inFlight {
			inFlight[i] = charged(types.UID(fmt.Sprintf("%08d", i)), "limits.cpu=1 limits.memory=1Gi")
		}
		used := list(fmt.Sprintf("limits.cpu=%d limits.memory=%dGi", 4+n, 8+n))
		raised := quiet[0].DeepCopy()
		raised.Status = corev1.ResourceQuotaStatus{Hard: quota.Effective(raised.Spec.Hard, inFlight, used), Used: used}
		b.Run(fmt.Sprintf("raised, migrations=%d", n), func(b *testing.B) {
			benchmarkApply(b, inFlight, []*corev1.ResourceQuota{raised, quiet[1]})
		})
	}
}

func benchmarkApply(b *testing.B, inFlight []quota.Migration, quotas []*corev1.ResourceQuota) {
	s := newScene(b)
	s.restart(func(c *applier.Config) {
		c.Policy, c.Recorder, c.Metrics = nil, nil, nil
		c.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) { return quotas, nil }
	})
	s.inFlight(inFlight...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.applier.Apply(s.ctx, "tenant"); err != nil {
			b.Fatal(err)
		}
	}
	if len(s.calls()) > 0 {
		b.Fatal("something was to be done")
	}
}
