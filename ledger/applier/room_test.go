package applier_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// roomy is a scene with a quota that has room for one migration more.
func roomy(t tb, migrations ...quota.Migration) *scene {
	s := newScene(t)
	s.limit("q", "limits.cpu=4 limits.memory=4Gi")
	s.use("q", "limits.cpu=3 limits.memory=2Gi")
	s.inFlight(migrations...)
	return s
}

// What stays refused although there is room for its surge is asked for more than that: its
// guest grows. It is given its surge all the same, and in the end the limits are static.
func TestRoomThatDoesNotHelp(t *testing.T) {
	const surge = "limits.cpu=1 limits.memory=1Gi"
	partly := blocked("a", surge+" requests.storage=1Gi")
	partly.State, partly.Held = quota.Charged, list("requests.storage=1Gi")
	for name, m := range map[string]quota.Migration{"blocked": blocked("a", surge), "only its claim is there": partly} {
		t.Run(name, func(t *testing.T) {
			s := roomy(t, m)
			before := s.quota("q")
			result := s.only()
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, 5*time.Second, result.RetryAfter)
			s.pass(5*time.Second - time.Millisecond)
			require.Equal(t, time.Millisecond, s.only().RetryAfter)
			require.Zero(t, s.updates)

			s.pass(time.Millisecond)
			result = s.only()
			require.Equal(t, applier.Raised, result.Action)
			require.Zero(t, result.RetryAfter)
			require.Equal(t, `{"limits.cpu":"5","limits.memory":"5Gi"}`, s.hard("q"))

			// The target pod comes, with a guest of one more Gi. The raise stands, whoever
			// remembers it.
			s.inFlight(charged("a", surge))
			s.use("q", "limits.cpu=4 limits.memory=4Gi")
			s.pass(time.Hour)
			require.Equal(t, applier.Unchanged, s.only().Action)
			s.restart()
			require.Equal(t, applier.Unchanged, s.only().Action)
			s.inFlight()
			s.use("q", "limits.cpu=3 limits.memory=3Gi")
			require.Equal(t, applier.Restored, s.only().Action)
			s.requireUntouched(before)
			require.Equal(t, []string{"Raised q", "Restored q"}, s.counted())
		})
	}
}

// A raise that is made so stands while the target pod is refused.
func TestRoomThatDoesNotHelpStaysRaised(t *testing.T) {
	s := roomy(t, blocked("a", "limits.cpu=1"))
	s.only()
	s.pass(5 * time.Second)
	s.only()
	for range 3 {
		require.Equal(t, applier.Unchanged, s.only().Action)
		s.pass(time.Minute)
	}
	s.restart()
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Equal(t, `{"limits.cpu":"5","limits.memory":"4Gi"}`, s.hard("q"))
}

// Only what is refused all the time, of one migration, raises.
func TestRoomThatHelps(t *testing.T) {
	const pause = 4 * time.Second
	for name, next := range map[string]func(s *scene, n int){
		"the target pod comes": func(s *scene, _ int) { s.inFlight(charged("a", "limits.cpu=1")) },
		"it is held in part": func(s *scene, _ int) {
			s.inFlight(quota.Migration{UID: "a", State: quota.Charged, Surge: list("limits.cpu=1"), Held: list("limits.cpu=100m")})
		},
		"it waits for KubeVirt":   func(s *scene, _ int) { s.inFlight(queued("a", "limits.cpu=1")) },
		"others are refused then": func(s *scene, n int) { s.inFlight(blocked(types.UID(rune('b'+n)), "limits.cpu=1")) },
		"it ends":                 func(s *scene, _ int) { s.inFlight() },
		"the applier restarts":    func(s *scene, _ int) { s.restart() },
		"it is switched off, and on": func(s *scene, _ int) {
			s.edit("tenant/q", func(rq *corev1.ResourceQuota) { setAnnotation(rq, applier.DisabledAnnotation, "true") })
			s.apply()
			s.edit("tenant/q", func(rq *corev1.ResourceQuota) { delete(rq.Annotations, applier.DisabledAnnotation) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := roomy(t, blocked("a", "limits.cpu=1"))
			s.apply()
			for n := range 5 {
				s.pass(pause)
				next(s, n)
				s.apply()
			}
			require.Zero(t, s.updates)
		})
	}
}

// A budget counts it like any other raise, and who waits for it asks again until it is
// granted.
func TestBudgetsCountRoomThatDoesNotHelp(t *testing.T) {
	t.Run("of all namespaces", func(t *testing.T) {
		s := tenants(t, "limits.cpu=1")
		apply := func(namespace string, migrations ...quota.Migration) applier.QuotaResult {
			require.NoError(t, s.record.Replace(s.ctx, namespace, migrations))
			return must(s.applier.Apply(s.ctx, namespace)).Quotas[0]
		}
		require.Equal(t, applier.Raised, apply("n1", blocked("a", "limits.cpu=1")).Action)
		s.edit("n2/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=2") })
		require.Empty(t, reasonsOf(apply("n2", blocked("b", "limits.cpu=1"))))
		s.pass(5 * time.Second)
		for range 10 {
			result := apply("n2", blocked("b", "limits.cpu=1"))
			require.Equal(t, reasons{"b": applier.GlobalBudgetUsed}, reasonsOf(result))
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, time.Second, result.RetryAfter)
			s.pass(result.RetryAfter)
		}
		apply("n1")
		require.Equal(t, applier.Raised, apply("n2", blocked("b", "limits.cpu=1")).Action)
		require.Equal(t, reasons{"c": applier.GlobalBudgetUsed}, reasonsOf(apply("n3", blocked("c", "limits.cpu=1"))))
	})
	t.Run("of a namespace", func(t *testing.T) {
		s := roomy(t, blocked("a", "limits.cpu=1"))
		s.policy.Budget = list("limits.cpu=500m")
		for range 3 {
			require.Equal(t, applier.Unchanged, s.only().Action)
			s.pass(5 * time.Second)
		}
		require.Zero(t, s.updates)
	})
}
