package applier_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// from is m on a node, so old.
func from(node string, age time.Duration, m quota.Migration) quota.Migration {
	m.Node, m.Created = node, metav1.NewTime(epoch.Add(-age))
	return m
}

// drain is n migrations from nodes of their own, m00 the oldest, each of one CPU. The first are
// charged.
func drain(n int, charged ...int) []quota.Migration {
	var inFlight []quota.Migration
	for i := range n {
		uid := types.UID(fmt.Sprintf("m%02d", i))
		m := queued(uid, "limits.cpu=1")
		if len(charged) > 0 && i < charged[0] {
			m.State = quota.Charged
		}
		inFlight = append(inFlight, from("node-"+string(uid), time.Hour-time.Duration(i)*time.Second, m))
	}
	return inFlight
}

// in puts a full quota and migrations into a namespace of its own.
func (s *scene) in(namespace string, inFlight ...quota.Migration) *scene {
	s.t.Helper()
	if _, ok := s.quotas[namespace+"/q"]; !ok {
		s.create(quotaIn(namespace, "q", "limits.cpu=20"))
		s.edit(namespace+"/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=20") })
	}
	require.NoError(s.t, s.record.Replace(s.ctx, namespace, inFlight))
	return s
}

// offeredIn applies, and returns who has an offer.
func (s *scene) offeredIn(namespace string) string {
	s.t.Helper()
	result, err := s.applier.Apply(s.ctx, namespace)
	require.NoError(s.t, err)
	require.Len(s.t, result.Quotas, 1)
	return fmt.Sprint(result.Quotas[0].Offered)
}

// As many have an offer as KubeVirt can start.
func TestOffersAreForWhatKubeVirtCanStart(t *testing.T) {
	sameNode := drain(4)
	for i := range sameNode {
		sameNode[i].Node = "n"
	}
	unknown := drain(4)
	for i := range unknown {
		unknown[i].Node = ""
	}
	running := drain(9, 3)
	over := drain(9, 3)
	for i := range 3 {
		over[i].Over = true
	}
	for name, test := range map[string]struct {
		inFlight []quota.Migration
		parallel applier.Parallel
		offered  string
	}{
		"5 in the cluster":            {drain(9), applier.Parallel{}, "[m00 m01 m02 m03 m04]"},
		"2 from a node":               {sameNode, applier.Parallel{}, "[m00 m01]"},
		"nodes that are not known":    {unknown, applier.Parallel{}, "[m00 m01 m02 m03]"},
		"beside those that run":       {running, applier.Parallel{}, "[m03 m04]"},
		"beside those that are over":  {over, applier.Parallel{}, "[m03 m04 m05 m06 m07]"},
		"as it is said":               {sameNode, applier.Parallel{Cluster: 9, Node: 3}, "[m00 m01 m02]"},
		"as it is said, and too much": {drain(9), applier.Parallel{Cluster: -1, Node: -1}, "[m00 m01 m02 m03 m04]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.config.Parallel = test.parallel
			s.restart(func(c *applier.Config) { c.Parallel.Open = 99 })
			s.in("tenant", test.inFlight...)
			require.Equal(t, test.offered, s.use("q", "limits.cpu=23").offeredIn("tenant"))
		})
	}
}

// Room is open for two target pods at a time, and for the next as soon as one has come.
func TestTwoOffersAtATime(t *testing.T) {
	s := newScene(t)
	m := drain(4)
	s.in("tenant", m...)
	require.Equal(t, "[m00 m01]", s.use("q", "limits.cpu=23").offeredIn("tenant"))
	m[1].State = quota.Charged
	require.Equal(t, "[m00 m02]", s.in("tenant", m...).offeredIn("tenant"))
}

// KubeVirt starts migrations in an order of its own. Room for others than it has started is
// closed when it can start no more.
func TestOffersEndWhenKubeVirtHasStartedOthers(t *testing.T) {
	s := newScene(t)
	m := drain(8, 3)
	s.in("tenant", m...)
	require.Equal(t, "[m03 m04]", s.use("q", "limits.cpu=26").offeredIn("tenant"))
	m[6].State = quota.Charged
	require.Equal(t, "[m03]", s.in("tenant", m...).offeredIn("tenant"))
	m[7].State = quota.Charged
	require.Equal(t, "[]", s.in("tenant", m...).offeredIn("tenant"))
	require.Equal(t, "limits.cpu=26", s.hard("q"), "no more than is used")
}

// Priority, then age, across the namespaces.
func TestOffersGoByTurn(t *testing.T) {
	s := newScene(t, func(c *applier.Config) { c.Parallel.Cluster = 2 })
	urgent := from("n3", 0, queued("u", "limits.cpu=1"))
	urgent.Priority = 1
	s.in("young", from("n1", time.Minute, queued("y", "limits.cpu=1")))
	s.in("tenant", from("n2", time.Hour, queued("o", "limits.cpu=1")), urgent, from("n4", time.Second, queued("z", "limits.cpu=1")))
	require.Equal(t, "[o u]", s.offeredIn("tenant"))
	require.Equal(t, "[]", s.offeredIn("young"))

	// What is offered stays so, whoever comes.
	before := from("n5", 2*time.Hour, queued("b", "limits.cpu=1"))
	before.Priority = 9
	require.Equal(t, "[]", s.in("young", before).offeredIn("young"))
	require.Equal(t, "[o u]", s.offeredIn("tenant"))
}

// An offer ends when its pod is charged, and the next migration has its turn when one ends.
func TestAnOfferEndsWhenThePodIsCharged(t *testing.T) {
	s := newScene(t, func(c *applier.Config) { c.Parallel.Cluster = 1 })
	m := drain(3)
	require.Equal(t, "[m00]", s.in("tenant", m...).offeredIn("tenant"))
	require.Equal(t, "limits.cpu=21", s.hard("q"))

	m[0].State = quota.Charged
	s.use("q", "limits.cpu=21")
	require.Equal(t, "[]", s.in("tenant", m...).offeredIn("tenant"))
	require.Equal(t, "limits.cpu=21", s.hard("q"))
	require.Equal(t, 1, s.updates)

	// KubeVirt has ended it. Its losing pod is still charged, the next may be started.
	m[0].Over = true
	require.Equal(t, "[m01]", s.in("tenant", m...).offeredIn("tenant"))
	require.Equal(t, "limits.cpu=22", s.hard("q"))
}

// An offer that lapses closes the room at once. The migration behind it has its turn, and the
// first again after a pause that doubles.
func TestAnOfferLapses(t *testing.T) {
	s := newScene(t, func(c *applier.Config) { c.Parallel.Cluster = 1 })
	s.in("tenant", drain(1)...)
	var waits []time.Duration
	for range 8 {
		r := s.apply()
		require.Equal(t, applier.Raised, r.Quotas[0].Action)
		require.Equal(t, time.Second, r.RequeueAfter)
		require.Equal(t, applier.Unchanged, s.pass(r.RequeueAfter-time.Millisecond).only().Action)
		r = s.pass(time.Millisecond).apply()
		require.Equal(t, applier.Restored, r.Quotas[0].Action)
		waits = append(waits, r.RequeueAfter)
		require.Equal(t, applier.Unchanged, s.pass(r.RequeueAfter-time.Millisecond).only().Action)
		s.pass(time.Millisecond)
	}
	second := time.Second
	require.Equal(t, []time.Duration{2 * second, 4 * second, 8 * second, 16 * second, 32 * second, 60 * second, 60 * second, 60 * second}, waits)

	// It comes to run: the next lapse is the first again.
	s.in("tenant", drain(1, 1)...)
	s.use("q", "limits.cpu=21").apply()
	s.in("tenant", drain(1)...)
	s.recount("limits.cpu=20").apply()
	require.Equal(t, 2*second, s.pass(time.Second).apply().RequeueAfter)
}

// When a migration ends anywhere, KubeVirt tries again: so do the offers, and the namespace
// is enqueued.
func TestALapsedOfferIsMadeAgainWhenAMigrationEnds(t *testing.T) {
	s := newScene(t)
	var enqueued []string
	s.restart(func(c *applier.Config) { c.Enqueue = func(namespace string) { enqueued = append(enqueued, namespace) } })
	running := charged("r", "limits.cpu=1")
	s.in("other", running)
	s.offeredIn("other")
	require.Equal(t, "[m00]", s.in("tenant", drain(1)...).offeredIn("tenant"))
	require.Equal(t, "[]", s.pass(time.Second).offeredIn("tenant"))
	require.Empty(t, enqueued)

	for name, after := range map[string][]quota.Migration{
		"gone":         nil,
		"over":         {func() quota.Migration { m := running; m.Over = true; return m }()},
		"it never ran": {queued("r", "configmaps=1")},
	} {
		enqueued = nil
		s.in("other", running)
		s.offeredIn("other")
		require.Empty(t, enqueued, name)
		s.in("other", after...)
		_, err := s.applier.Apply(s.ctx, "other")
		require.NoError(t, err)
		require.Equal(t, []string{"tenant"}, enqueued, name)
		require.Equal(t, "[m00]", s.offeredIn("tenant"), name)
		require.Equal(t, "[]", s.pass(time.Second).offeredIn("tenant"), name)
	}
}

// A slot that is free is given to whoever is next, in whatever namespace, and only once.
func TestASlotIsGivenOnce(t *testing.T) {
	s := newScene(t)
	var enqueued []string
	s.config.Enqueue = func(namespace string) { enqueued = append(enqueued, namespace) }
	s.restart(func(c *applier.Config) { c.Parallel.Cluster = 1 })
	m := drain(3)
	s.in("first", m[0])
	s.in("second", m[1])
	require.Equal(t, "[m00]", s.in("third", m[2]).offeredIn("first"))
	require.Equal(t, "[]", s.offeredIn("third"))
	require.Equal(t, "[]", s.offeredIn("second"))
	s.in("first")
	s.offeredIn("first")
	require.Equal(t, []string{"second"}, enqueued)
	require.Equal(t, "[m01]", s.offeredIn("second"))
	require.Equal(t, "[]", s.offeredIn("third"))
}

// Forty migrations that KubeVirt does not start, for a reason of its own, older and more
// urgent, do not keep the others from their turns, even if migrations end all the time.
func TestNobodyStarves(t *testing.T) {
	s := newScene(t)
	stuck := drain(40)
	for i := range stuck {
		stuck[i].Priority = 5
	}
	s.in("stuck", stuck...)
	s.in("tenant", from("n", 0, queued("x", "limits.cpu=1")), from("o", 0, queued("y", "limits.cpu=1")))
	turns := map[types.UID]int{}
	for i := range 600 {
		var ends []quota.Migration
		if i%2 == 0 {
			ends = append(ends, charged("e", "limits.cpu=1"))
		}
		s.in("other", ends...)
		for _, namespace := range []string{"other", "stuck", "tenant"} {
			result, err := s.applier.Apply(s.ctx, namespace)
			require.NoError(t, err)
			for _, q := range result.Quotas {
				for _, uid := range q.Offered {
					turns[uid]++
				}
			}
		}
		s.pass(100 * time.Millisecond)
	}
	require.Len(t, turns, 42)
	for uid, n := range turns {
		require.GreaterOrEqual(t, n, 10, uid) // of 600, of which each offer is about 10
	}
}

// KubeVirt may be configured for more. If more are seen to run than were thought possible,
// and that not only for a moment, that many are.
func TestLimitsAreLearned(t *testing.T) {
	s := newScene(t, func(c *applier.Config) { c.Parallel.Open = 99 })
	m := drain(20, 8)
	for i := range m {
		m[i].Node = fmt.Sprintf("n%d", i/4) // 4 from a node, and the caches may be behind
	}
	s.in("tenant", m...)
	require.Equal(t, "[]", s.use("q", "limits.cpu=28").offeredIn("tenant"))
	require.Equal(t, "[]", s.pass(time.Second).offeredIn("tenant"))
	for i := range 4 {
		m[i].Over = true
	}
	require.Equal(t, "[m08 m09 m10 m11]", s.in("tenant", m...).offeredIn("tenant"))
}

func TestWhatHasJustBegunIsNotLearned(t *testing.T) {
	s := newScene(t)
	m := drain(8, 6) // the caches do not show yet that one of them is over
	s.in("tenant", m...)
	require.Equal(t, "[]", s.use("q", "limits.cpu=26").offeredIn("tenant"))
	s.pass(100 * time.Millisecond)
	m[0].Over, m[1].Over = true, true
	require.Equal(t, "[m06]", s.in("tenant", m...).offeredIn("tenant"))
	require.Equal(t, "[m07]", s.pass(time.Second).offeredIn("tenant"))
}

// An offer beyond the limits is made now and then, one at a time.
func TestAProbe(t *testing.T) {
	s := newScene(t)
	m := drain(8, 5)
	s.in("tenant", m...)
	s.use("q", "limits.cpu=25")
	var waits []time.Duration
	var probed []string
	waited := time.Duration(0)
	for len(probed) < 5 {
		r := s.apply()
		require.Positive(t, r.RequeueAfter)
		if offered := r.Quotas[0].Offered; len(offered) > 0 {
			require.Len(t, offered, 1)
			probed = append(probed, string(offered[0]))
			waits, waited = append(waits, waited), 0
			require.Empty(t, s.pass(time.Second).only().Offered)
			continue
		}
		waited += r.RequeueAfter
		s.pass(r.RequeueAfter)
	}
	require.Equal(t, []string{"m05", "m06", "m07", "m05", "m06"}, probed)
	require.Equal(t, 10*time.Second, waits[0])
	require.True(t, slices.IsSorted(waits), waits)

	// One comes to run: that many are possible.
	m[6].State = quota.Charged
	s.in("tenant", m...)
	s.use("q", "limits.cpu=26").apply()
	require.Empty(t, s.pass(time.Second).only().Offered)
	m[0].Over = true
	require.Len(t, s.in("tenant", m...).only().Offered, 1)
}

// Where they fit, KubeVirt starts more of them by itself: there is nothing to find out.
func TestNoProbeForWhatFits(t *testing.T) {
	s := newScene(t)
	m := drain(8, 5)
	s.in("tenant", m...)
	s.use("q", "limits.cpu=9").apply()
	require.Zero(t, s.pass(time.Minute).apply().RequeueAfter)
}

// What has an open offer keeps it, whoever comes and whatever the budget lasts for.
func TestAnOpenOfferIsKept(t *testing.T) {
	s := newScene(t)
	s.policy = quota.Policy{Budget: list("limits.cpu=1")}
	a, b := from("n", time.Hour, queued("a", "limits.cpu=1")), from("n", time.Hour, queued("b", "limits.cpu=1"))
	require.Equal(t, "[a]", s.in("tenant", a).offeredIn("tenant"))
	b.Priority = 1
	require.Equal(t, "[a]", s.in("tenant", a, b).offeredIn("tenant"))
	require.Equal(t, "b BudgetUsed limits.cpu=1", deferrals(s.only()))
	require.Equal(t, 1, s.updates)
}

// A migration that fits needs no room, but it has a turn: while KubeVirt may start it, what
// it needs of what charged migrations add is written again at once.
func TestAMigrationThatFitsHasATurn(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
	s.inFlight(charged("a", "limits.cpu=1"), queued("b", "limits.cpu=1")).expect(applier.Raised, "limits.cpu=5")
	r := s.recount("limits.cpu=4").only()
	require.Equal(t, applier.Raised, r.Action)
	require.Empty(t, r.Offered)
	s.pass(time.Second)
	require.Equal(t, applier.Unchanged, s.recount("limits.cpu=4").only().Action)
}
