package applier_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A recount by kube-controller-manager resets status.hard. What a target pod waits for is
// written again at once, each time.
func TestARecountDuringAnOffer(t *testing.T) {
	s := full(t)
	s.apply()
	for range 10 {
		s.recount("tenant/q", "limits.cpu=4")
		require.Equal(t, applier.Raised, s.only().Action)
		require.Equal(t, "limits.cpu=5", s.hard("q"))
		s.pass(10 * time.Millisecond)
	}
	require.Empty(t, s.reasons())
}

// What only charged migrations need is written again after a pause, and no more often than
// once a second.
func TestARecountWhileAMigrationIsCharged(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=5")
	s.inFlight(charged("a", "limits.cpu=1"))
	s.apply()
	s.pass(time.Minute)
	s.recount("tenant/q", "limits.cpu=5")
	r := s.only()
	require.Equal(t, applier.Unchanged, r.Action)
	require.Equal(t, "limits.cpu=5", amountsOf(r.Effective))
	require.Equal(t, "limits.cpu=4", amountsOf(r.Hard))
	require.Equal(t, "a recount by kube-controller-manager has reset the limit; it is about to be written again", r.Why)
	require.Equal(t, 100*time.Millisecond, r.RequeueAfter)
	s.pass(60 * time.Millisecond)
	require.Equal(t, 40*time.Millisecond, s.only().RequeueAfter)
	s.pass(40 * time.Millisecond)
	require.Equal(t, applier.Raised, s.only().Action)

	s.recount("tenant/q", "limits.cpu=5")
	require.Equal(t, time.Second, s.only().RequeueAfter)
	s.pass(time.Second)
	require.Equal(t, applier.Raised, s.only().Action)
	require.Empty(t, s.reasons())
}

// A busy namespace: 20 pods end per second for ten seconds, and each makes
// kube-controller-manager recount. That costs one write per second, unless an offer is open.
func TestABusyNamespace(t *testing.T) {
	for name, inFlight := range map[string][]quota.Migration{
		"charged":                    {charged("a", "limits.cpu=1")},
		"charged, and others queue":  append(drain(30), charged("a", "limits.cpu=1")),
		"charged, and the rest fits": {charged("a", "limits.cpu=1"), queued("b", "limits.cpu=1m"), queued("c", "limits.cpu=1m")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.config.Parallel = applier.Parallel{Cluster: 1}
			s.restart()
			s.limit("q", "limits.cpu=4")
			s.use("q", "limits.cpu=5")
			s.inFlight(inFlight...)
			s.apply()
			s.pass(2 * time.Second)
			s.apply()
			writes, open := map[int]int{}, map[int]bool{}
			for ms := 0; ms < 10_000; ms += 10 {
				switch ms % 50 { // a pod ends, and the next one comes
				case 0:
					s.recount("tenant/q", "limits.cpu=4900m")
				case 10:
					s.use("q", "limits.cpu=5")
				}
				before := s.updates
				open[ms/1000] = len(s.only().Offered) > 0 || open[ms/1000]
				writes[ms/1000] += s.updates - before
				s.pass(10 * time.Millisecond)
			}
			for second, n := range writes {
				if !open[second] {
					require.LessOrEqual(t, n, 1, "%v", writes)
				}
			}
			require.GreaterOrEqual(t, s.updates, 9) // and it is not given up
		})
	}
}

// Nobody can take what an offer leaves open after it is over: it is closed at once.
func TestAnOfferThatIsOverIsClosedAtOnce(t *testing.T) {
	for name, end := range map[string]func(s *scene){
		"it is gone":                  func(s *scene) { s.inFlight() },
		"it fits now":                 func(s *scene) { s.use("q", "limits.cpu=3") },
		"it lapses":                   func(s *scene) { s.pass(time.Second) },
		"another that was not it":     func(s *scene) { s.inFlight(blocked("b", "limits.cpu=500m")) },
		"the budget ends, and it too": func(s *scene) { s.inFlight(); s.policy = quota.Policy{Budget: list("limits.cpu=0")} },
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			s.apply()
			require.Equal(t, "limits.cpu=5", s.hard("q"))
			end(s)
			s.apply()
			require.NotEqual(t, "limits.cpu=5", s.hard("q"))
		})
	}
}

// What charged migrations no longer need is left to kube-controller-manager, which lowers it
// with the usage; if it is down, it is lowered after a second.
func TestChargedIsOver(t *testing.T) {
	start := func(t *testing.T) *scene {
		s := full(t)
		s.apply()
		s.use("q", "limits.cpu=6")
		s.inFlight(charged("a", "limits.cpu=1"), charged("b", "limits.cpu=1"))
		s.apply()
		require.Equal(t, "limits.cpu=6", s.hard("q"))
		s.pass(time.Minute)
		s.apply()
		s.counted()
		return s
	}
	t.Run("kube-controller-manager is up", func(t *testing.T) {
		s := start(t)
		s.inFlight()
		r := s.only()
		require.Equal(t, applier.Unchanged, r.Action)
		require.Equal(t, "kube-controller-manager is about to lower the limit with the usage", r.Why)
		require.Equal(t, 150*time.Millisecond, r.RequeueAfter)
		s.recount("tenant/q", "limits.cpu=4")
		require.Empty(t, s.apply().Quotas)
		require.Empty(t, s.counted())
	})
	t.Run("it is down", func(t *testing.T) {
		s := start(t)
		s.inFlight(charged("a", "limits.cpu=1"))
		s.apply()
		s.pass(150 * time.Millisecond)
		require.Equal(t, applier.Lowered, s.only().Action)
		require.Equal(t, "limits.cpu=5", s.hard("q"))
		s.inFlight()
		s.apply()
		s.pass(149 * time.Millisecond)
		require.Equal(t, applier.Unchanged, s.only().Action)
		s.pass(time.Millisecond)
		require.Equal(t, applier.Restored, s.only().Action)
		require.Empty(t, s.apply().Quotas)
	})
	t.Run("it is up, and the other stays", func(t *testing.T) {
		s := start(t)
		s.inFlight(charged("a", "limits.cpu=1"))
		s.apply()
		s.recount("tenant/q", "limits.cpu=5")
		require.Equal(t, 100*time.Millisecond, s.only().RequeueAfter)
		s.pass(100 * time.Millisecond)
		require.Equal(t, applier.Raised, s.only().Action)
		require.Equal(t, "limits.cpu=5", s.hard("q"))
		require.Equal(t, []string{"Raised q"}, s.counted())
	})
}

// A restart in any phase: the next call makes it right, or has nothing to do.
func TestRestart(t *testing.T) {
	for _, guard := range []bool{false, true} {
		for restarts := range 1 << 7 {
			s := newScene(t)
			s.config.Guard = guard
			s.restart()
			s.limit("q", "limits.cpu=4")
			s.use("q", "limits.cpu=4")
			step := func(i int, happens func()) {
				happens()
				s.apply()
				if restarts&(1<<i) != 0 {
					s.restart()
					s.apply()
				}
			}
			step(0, func() { s.inFlight(blocked("a", "limits.cpu=1"), queued("b", "limits.cpu=1")) })
			step(1, func() { s.apply(); s.pass(20 * time.Millisecond) })
			require.Equal(t, "limits.cpu=6", s.hard("q"))
			step(2, func() {
				s.use("q", "limits.cpu=5")
				s.inFlight(charged("a", "limits.cpu=1"), queued("b", "limits.cpu=1"))
			})
			require.Equal(t, "limits.cpu=6", s.hard("q"))
			step(3, func() { s.inFlight(charged("a", "limits.cpu=1")) })
			s.pass(time.Second)
			s.apply()
			require.Equal(t, "limits.cpu=5", s.hard("q"))
			step(4, func() { s.recount("tenant/q", "limits.cpu=5") })
			step(5, func() { s.pass(time.Second) })
			require.Equal(t, "limits.cpu=5", s.hard("q"))
			step(6, func() { s.inFlight() })
			s.pass(time.Second)
			s.apply()
			require.Equal(t, "limits.cpu=4", s.hard("q"), "%b", restarts)
			require.Empty(t, s.quota("q").Annotations)
			require.Empty(t, s.apply().Quotas)
		}
	}
}

// A process that dies at any call, or after one was carried out but not answered, leaves
// what a new one finishes right.
func TestCrashAtAnyCall(t *testing.T) {
	life := []struct {
		happens func(s *scene)
		cpu, q  string
	}{
		{func(s *scene) { s.inFlight(blocked("a", "limits.cpu=1 pods=1")) }, "limits.cpu=5", "limits.cpu=5 pods=5"},
		{func(s *scene) {
			s.use("cpu", "limits.cpu=5")
			s.use("q", "limits.cpu=5 pods=5")
			s.inFlight(charged("a", "limits.cpu=1 pods=1"), blocked("b", "limits.cpu=2 pods=1"))
		}, "limits.cpu=7", "limits.cpu=7 pods=6"},
		{func(s *scene) { s.write("cpu", "limits.cpu=3") }, "limits.cpu=7", "limits.cpu=7 pods=6"},
		{func(s *scene) {
			s.use("cpu", "limits.cpu=7")
			s.use("q", "limits.cpu=7 pods=6")
			s.inFlight(charged("a", "limits.cpu=1 pods=1"), charged("b", "limits.cpu=2 pods=1"))
			s.recount("tenant/q", "limits.cpu=7 pods=6")
		}, "limits.cpu=7", "limits.cpu=7 pods=6"},
		{func(s *scene) { s.inFlight() }, "limits.cpu=3", "limits.cpu=4 pods=4"},
	}
	for _, carriedOut := range []bool{false, true} {
		for call := 1; ; call++ {
			s := newScene(t)
			s.limit("cpu", "limits.cpu=4")
			s.limit("q", "limits.cpu=4 pods=4")
			s.use("cpu", "limits.cpu=4")
			s.use("q", "limits.cpu=4 pods=4")
			crashed := s.crashAt(call, carriedOut)
			for i, step := range life {
				step.happens(s)
				for range 3 {
					if _, err := s.applier.Apply(s.ctx, "tenant"); err != nil {
						require.ErrorIs(t, err, errCrash)
						s.before, s.after = nil, nil
						s.restart()
						s.apply()
					}
					if i > 2 {
						s.pass(time.Second)
					}
				}
				at := fmt.Sprintf("step %d, call %d, carried out: %v", i, call, carriedOut)
				require.Equal(t, step.cpu, s.hard("cpu"), at)
				require.Equal(t, step.q, s.hard("q"), at)
			}
			if !crashed() {
				require.Greater(t, call, 2*len(life))
				break
			}
		}
	}
}

// crashAt lets the call, and all that come after it, fail. Somebody else writes before
// some of the updates, so that there are conflicts as well.
func (s *scene) crashAt(call int, carriedOut bool) (crashed func() bool) {
	calls, updates := 0, 0
	s.before = func(verb string) error {
		if calls++; calls > call || calls == call && !carriedOut {
			return errCrash
		}
		if verb == "update" {
			if updates++; updates%3 == 1 {
				s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"n": fmt.Sprint(updates)} })
				s.edit("tenant/cpu", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"n": fmt.Sprint(updates)} })
			}
		}
		return nil
	}
	s.after = func(string) error {
		if calls >= call {
			return errCrash
		}
		return nil
	}
	return func() bool { return calls >= call }
}

var errCrash = errors.New("crash")
