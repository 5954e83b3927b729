package applier_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// enforcedQuota is one that kube-controller-manager has counted.
func enforcedQuota(name, limits, used string) *corev1.ResourceQuota {
	rq := quotaIn("tenant", name, limits)
	rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard.DeepCopy(), Used: list(used)}
	return rq
}

// deferrals spells out who gets no room, and why.
func deferrals(r applier.QuotaResult) string {
	var parts []string
	for _, d := range r.Decision.Deferred {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", d.UID, d.Reason, amountsOf(d.Missing))))
	}
	return strings.Join(parts, "; ")
}

func TestPlan(t *testing.T) {
	quotas := []*corev1.ResourceQuota{
		enforcedQuota("pods", "pods=2", "pods=2"),
		enforcedQuota("cpu", "limits.cpu=4", "limits.cpu=4"),
		enforcedQuota("objects", "configmaps=1", "configmaps=1"),
	}
	results := applier.Plan(applier.Config{}, quotas, []quota.Migration{blocked("c", "limits.cpu=1"), blocked("a", "limits.cpu=1"), queued("b", "limits.cpu=1 pods=1")})
	require.Len(t, results, 2)
	require.Equal(t, "cpu", results[0].Name)
	require.Equal(t, applier.Raised, results[0].Action)
	require.Equal(t, "limits.cpu=4", amountsOf(results[0].Hard))
	require.Equal(t, "limits.cpu=7", amountsOf(results[0].Effective))
	require.Equal(t, []types.UID{"a", "b", "c"}, results[0].Offered)
	require.Equal(t, "room is open for 3 target pods", results[0].Why)
	require.Equal(t, "pods=3", amountsOf(results[1].Effective))
	require.Equal(t, []types.UID{"b"}, results[1].Offered)

	require.Empty(t, applier.Plan(applier.Config{}, quotas, nil))
	require.Empty(t, applier.Plan(applier.Config{}, nil, []quota.Migration{blocked("a", "limits.cpu=1")}))
}

func TestPlanSaysWhyNot(t *testing.T) {
	rq := enforcedQuota("q", "limits.cpu=4", "limits.cpu=4")
	grows := blocked("a", "limits.cpu=1")
	grows.Growth = list("limits.cpu=500m")
	result := applier.Plan(applier.Config{}, []*corev1.ResourceQuota{rq}, []quota.Migration{grows})[0]
	require.Equal(t, applier.Unchanged, result.Action)
	require.Equal(t, "no migration needs room now", result.Why)
	require.Equal(t, "a GrowthAboveStatic limits.cpu=500m", deferrals(result))

	rq.Annotations = map[string]string{applier.DisabledAnnotation: "true"}
	result = applier.Plan(applier.Config{}, []*corev1.ResourceQuota{rq}, []quota.Migration{grows})[0]
	require.Equal(t, "a Disabled", deferrals(result))
}

// What a quota of another kind has refused gets no room: it does not help.
func TestRefusedElsewhere(t *testing.T) {
	refusedBy := func(uid types.UID, name string) quota.Migration {
		m := blocked(uid, "limits.cpu=1")
		m.VMI, m.RefusedBy = "vm-"+string(uid), name
		return m
	}
	quotas := []*corev1.ResourceQuota{
		enforcedQuota("q", "limits.cpu=4", "limits.cpu=4"),
		enforcedQuota("objects", "configmaps=1", "configmaps=1"),
	}
	plan := func(m ...quota.Migration) applier.QuotaResult { return applier.Plan(applier.Config{}, quotas, m)[0] }
	result := plan(refusedBy("a", "cluster-quota"))
	require.Equal(t, applier.Unchanged, result.Action)
	require.Equal(t, "a RefusedElsewhere", deferrals(result))
	for _, name := range []string{"", "q", "objects"} {
		result = plan(refusedBy("a", name))
		require.Equal(t, applier.Raised, result.Action, name)
		require.Empty(t, deferrals(result))
	}
	result = plan(refusedBy("a", "cluster-quota"), refusedBy("b", "q"))
	require.Equal(t, []types.UID{"b"}, result.Offered)

	t.Run("while it has an offer", func(t *testing.T) {
		s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
		s.inFlight(refusedBy("a", "q")).apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
		s.inFlight(refusedBy("a", "cluster-quota")).apply()
		require.Equal(t, "limits.cpu=4", s.hard("q"))
		require.Contains(t, s.events, "Normal HeadroomDeferred Live migrations wait for room: of vm-a: cluster-quota has refused it, which is no ResourceQuota of this namespace.")
	})
	t.Run("takes no turn of others", func(t *testing.T) {
		var inFlight []quota.Migration
		for i := range 5 {
			m := refusedBy(types.UID(fmt.Sprintf("a%d", i)), "cluster-quota")
			m.Surge = list("pods=1") // which no quota limits
			inFlight = append(inFlight, m)
		}
		inFlight = append(inFlight, refusedBy("b", "q"))
		require.Equal(t, []types.UID{"b"}, plan(inFlight...).Offered)
	})
}
