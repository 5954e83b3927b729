package applier_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// reasonsOf returns who is deferred in a quota, and why.
func reasonsOf(q applier.QuotaResult) map[types.UID]quota.DeferralReason {
	reasons := map[types.UID]quota.DeferralReason{}
	for _, d := range q.Decision.Deferred {
		reasons[d.UID] = d.Reason
	}
	return reasons
}

type reasons = map[types.UID]quota.DeferralReason

func TestBudgetOfANamespace(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.policy.Budget = list("limits.cpu=2")
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=3"), blocked("c", "limits.cpu=1"), blocked("d", "limits.cpu=1"))
	result := s.only()
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("q"))
	require.Equal(t, []types.UID{"a", "c"}, result.Decision.Granted)
	require.Equal(t, reasons{"b": quota.BudgetExceeded, "d": quota.BudgetUsed}, reasonsOf(result))
	require.Equal(t, `{"limits.cpu":"1"}`, jsonOf(t, result.Decision.Deferred[0].Missing))
	require.Zero(t, result.RetryAfter)

	// It is told when it changes.
	s.only()
	require.Equal(t, []string{
		"Normal HeadroomDeferred Live migrations wait for room: b (vm-b): BudgetExceeded, d (vm-d): BudgetUsed.",
	}, s.events)
	s.inFlight(charged("a", "limits.cpu=1"), blocked("d", "limits.cpu=1"))
	s.use("q", "limits.cpu=5")
	require.Empty(t, reasonsOf(s.only()))
	s.inFlight(charged("a", "limits.cpu=1"), charged("d", "limits.cpu=1"), blocked("e", "limits.cpu=1"))
	s.use("q", "limits.cpu=6")
	s.only()
	require.Len(t, s.events, 2)
}

func TestStrictDefers(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.memory=5000Mi")
	s.use("q", "limits.memory=5682461313")
	s.policy.Strict = true
	s.inFlight(blocked("a", "limits.memory=5682461313"))
	result := s.only()
	require.Equal(t, reasons{"a": quota.RegularAboveStatic}, reasonsOf(result))
	require.Equal(t, `{"limits.memory":"439581313"}`, jsonOf(t, result.Decision.Deferred[0].Missing))
	require.Zero(t, s.updates)
	s.use("q", "limits.memory=5000Mi")
	require.Equal(t, applier.Raised, s.only().Action)
}

// A migration that waits in one quota is granted in no other, and neither it nor one that
// can never be granted holds back those that could be.
func TestDeferredInOneQuotaIsGrantedInNone(t *testing.T) {
	s := newScene(t)
	s.limit("cpu", "limits.cpu=4")
	s.limit("memory", "limits.memory=4Gi")
	s.use("cpu", "limits.cpu=4")
	s.use("memory", "limits.memory=4Gi")
	s.policy.Budget = list("limits.memory=2Gi limits.cpu=3")
	s.inFlight(
		blocked("a", "limits.cpu=1 limits.memory=1Gi"),
		blocked("b", "limits.cpu=2 limits.memory=3Gi"), // never
		blocked("c", "limits.cpu=1 limits.memory=1Gi"),
		blocked("d", "limits.cpu=1 limits.memory=1Gi"), // waits
		blocked("e", "limits.cpu=1"),
	)
	result := s.apply()
	require.Equal(t, reasons{"b": quota.BudgetExceeded, "d": quota.BudgetUsed}, reasonsOf(result.Quotas[1]))
	// In the turn, d has the last of the CPUs, for when it gets its memory.
	require.Equal(t, reasons{"e": quota.BudgetUsed}, reasonsOf(result.Quotas[0]))
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("cpu"))
	require.Equal(t, `{"limits.memory":"6Gi"}`, s.hard("memory"))

	// With room in memory as it is, the budget of memory does not matter.
	s.use("memory", "limits.memory=1Gi")
	s.inFlight(blocked("b", "limits.cpu=2 limits.memory=3Gi"))
	result = s.apply()
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("cpu"))
	require.Equal(t, `{"limits.memory":"4Gi"}`, s.hard("memory"))
	require.Empty(t, reasonsOf(result.Quotas[1]))
}

// Two that have room one by one, but not both, are not both left without headroom.
func TestRoomForOneOfTwo(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=2")
	s.policy.Budget = list("limits.cpu=1")
	s.inFlight(blocked("a", "limits.cpu=2"), blocked("b", "limits.cpu=2"))
	result := s.only()
	require.Equal(t, reasons{"b": quota.BudgetExceeded}, reasonsOf(result))
	require.Zero(t, s.updates)
}

// Who waits for the budget does not wait if regular workloads leave room, also while the
// quota is raised for another.
func TestRoomInARaisedQuota(t *testing.T) {
	s := full(t)
	s.policy.Budget = list("limits.cpu=1")
	s.apply()
	s.use("q", "limits.cpu=5")
	s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"))
	require.Equal(t, reasons{"b": quota.BudgetUsed}, reasonsOf(s.only()))
	s.use("q", "limits.cpu=4")
	require.Empty(t, reasonsOf(s.only()))
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
}

// An eager policy grants queued migrations, and defers them.
func TestBudgetOfAnEagerPolicy(t *testing.T) {
	s := full(t)
	s.policy = quota.Policy{Eager: true, Budget: list("limits.cpu=1")}
	s.inFlight(queued("a", "limits.cpu=1"), queued("b", "limits.cpu=1"))
	require.Equal(t, reasons{"b": quota.BudgetUsed}, reasonsOf(s.only()))
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	switches["one quota"](s, true)
	require.Equal(t, reasons{"a": applier.Disabled, "b": applier.Disabled}, reasonsOf(s.only()))
}

// A conflict does not let in who waits.
func TestWhoWaitsStillWaitsAfterAConflict(t *testing.T) {
	s := tenants(t, "limits.cpu=1")
	require.NoError(t, s.record.Replace(s.ctx, "n1", []quota.Migration{blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")}))
	s.before = func(verb string) error {
		if verb == "update" {
			s.before = nil
			s.edit("n1/q", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"a": "b"} })
		}
		return nil
	}
	result := must(s.applier.Apply(s.ctx, "n1"))
	require.Equal(t, reasons{"b": applier.GlobalBudgetUsed}, reasonsOf(result.Quotas[0]))
	require.Equal(t, "limits.cpu=5", amountsOf(s.quotas["n1/q"].Spec.Hard))
}

// tenants is a scene with full quotas of 4 CPUs in the namespaces n1, n2 and n3.
func tenants(t tb, budget string) *scene {
	s := newScene(t)
	s.config.Budget = list(budget)
	s.restart()
	for _, namespace := range []string{"n1", "n2", "n3"} {
		s.create(quotaIn(namespace, "q", "limits.cpu=4"))
		s.edit(namespace+"/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=4") })
	}
	return s
}

func TestGlobalBudget(t *testing.T) {
	s := tenants(t, "limits.cpu=3")
	require := require.New(t)
	check := func(namespace, hard string, waiting reasons, migrations ...quota.Migration) {
		t.Helper()
		require.NoError(s.record.Replace(s.ctx, namespace, migrations))
		result, err := s.applier.Apply(s.ctx, namespace)
		require.NoError(err)
		is := reasons{}
		for _, q := range result.Quotas {
			is = reasonsOf(q)
		}
		require.Equal(waiting, is)
		require.Equal(hard, amountsOf(s.quotas[namespace+"/q"].Spec.Hard))
		retry := time.Duration(0)
		for _, reason := range waiting {
			if reason == applier.GlobalBudgetUsed {
				retry = time.Second
			}
		}
		require.Equal(retry, result.RetryAfter)
	}

	check("n1", "limits.cpu=6", reasons{}, blocked("a", "limits.cpu=2"))
	check("n2", "limits.cpu=4", reasons{"b": applier.GlobalBudgetUsed, "big": applier.GlobalBudgetExceeded},
		blocked("b", "limits.cpu=2"), blocked("big", "limits.cpu=4"))
	// It would fit, but b is before it.
	check("n3", "limits.cpu=4", reasons{"c": applier.GlobalBudgetUsed}, blocked("c", "limits.cpu=1"))
	// What is granted is not taken back for one of higher priority.
	urgent := blocked("d", "limits.cpu=1")
	urgent.Priority = 10
	check("n3", "limits.cpu=5", reasons{"c": applier.GlobalBudgetUsed}, blocked("c", "limits.cpu=1"), urgent)
	check("n1", "limits.cpu=6", reasons{}, charged("a", "limits.cpu=2"))
	check("n1", "limits.cpu=4", reasons{})
	// Now it is b's turn, not c's.
	check("n3", "limits.cpu=5", reasons{"c": applier.GlobalBudgetUsed}, blocked("c", "limits.cpu=1"), urgent)
	check("n2", "limits.cpu=6", reasons{}, blocked("b", "limits.cpu=2"))
	// What is charged counts, also above the budget.
	s.edit("n1/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=6") })
	check("n1", "limits.cpu=6", reasons{"f": applier.GlobalBudgetUsed}, charged("e", "limits.cpu=2"), blocked("f", "limits.cpu=1"))
	check("n2", "limits.cpu=4", reasons{})
	check("n1", "limits.cpu=6", reasons{"f": applier.GlobalBudgetUsed}, charged("e", "limits.cpu=2"), blocked("f", "limits.cpu=1"))
	check("n3", "limits.cpu=4", reasons{})
	check("n1", "limits.cpu=7", reasons{}, charged("e", "limits.cpu=2"), blocked("f", "limits.cpu=1"))
}

// What fits without a raise costs no budget.
func TestGlobalBudgetIsForRaises(t *testing.T) {
	s := tenants(t, "limits.cpu=1")
	s.edit("n1/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=2") })
	for namespace, want := range map[string]string{"n1": "limits.cpu=4", "n2": "limits.cpu=5"} {
		require.NoError(t, s.record.Replace(s.ctx, namespace, []quota.Migration{blocked(types.UID(namespace), "limits.cpu=1")}))
		result, err := s.applier.Apply(s.ctx, namespace)
		require.NoError(t, err)
		require.Empty(t, reasonsOf(result.Quotas[0]))
		require.Equal(t, want, amountsOf(s.quotas[namespace+"/q"].Spec.Hard))
	}
}

// Who waits and does not ask again loses its turn; who was refused has nothing of it.
func TestGlobalBudgetIsNotHeldInVain(t *testing.T) {
	apply := func(s *scene, namespace string, m quota.Migration) (applier.Result, error) {
		require.NoError(t, s.record.Replace(s.ctx, namespace, []quota.Migration{m}))
		return s.applier.Apply(s.ctx, namespace)
	}
	t.Run("by one that is gone", func(t *testing.T) {
		s := tenants(t, "limits.cpu=2")
		must(apply(s, "n1", blocked("a", "limits.cpu=1")))
		must(apply(s, "n2", blocked("b", "limits.cpu=2")))
		require.Len(t, must(apply(s, "n3", blocked("c", "limits.cpu=1"))).Quotas[0].Decision.Deferred, 1)
		s.pass(time.Minute)
		require.Empty(t, must(apply(s, "n3", blocked("c", "limits.cpu=1"))).Quotas[0].Decision.Deferred)
	})
	t.Run("by one that is refused", func(t *testing.T) {
		s := tenants(t, "limits.cpu=1")
		s.refuse(apierrors.NewForbidden(groupResource, "q", errors.New("no")))
		for range 2 {
			_, err := apply(s, "n1", blocked("a", "limits.cpu=1"))
			require.ErrorIs(t, err, applier.ErrForbidden)
		}
		s.refuse(nil)
		require.Equal(t, applier.Raised, must(apply(s, "n2", blocked("b", "limits.cpu=1"))).Quotas[0].Action)
	})
}

// After a restart the budget is known as far as Apply was called.
func TestGlobalBudgetAfterARestart(t *testing.T) {
	s := tenants(t, "limits.cpu=1")
	require.NoError(t, s.record.Replace(s.ctx, "n1", []quota.Migration{charged("a", "limits.cpu=1")}))
	require.NoError(t, s.record.Replace(s.ctx, "n2", []quota.Migration{blocked("b", "limits.cpu=1")}))
	s.edit("n1/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=5") })
	apply := func(namespace string) applier.QuotaResult {
		return must(s.applier.Apply(s.ctx, namespace)).Quotas[0]
	}
	require.Equal(t, applier.Raised, apply("n1").Action)
	require.Equal(t, reasons{"b": applier.GlobalBudgetUsed}, reasonsOf(apply("n2")))
	s.restart()
	require.Equal(t, applier.Unchanged, apply("n1").Action)
	require.Equal(t, reasons{"b": applier.GlobalBudgetUsed}, reasonsOf(apply("n2")))
	s.restart()
	require.Equal(t, applier.Raised, apply("n2").Action)    // it does not know of a
	require.Equal(t, applier.Unchanged, apply("n1").Action) // what is charged counts in any case
	require.Equal(t, applier.Unchanged, apply("n2").Action) // and what is granted is not taken back
}
