package applier_test

import (
	"errors"
	"fmt"
	"strings"
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
		s.recount("limits.cpu=4").expect(applier.Raised, "limits.cpu=5")
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
	s.inFlight(charged("a", "limits.cpu=1")).apply()
	s.pass(time.Minute)
	r := s.recount("limits.cpu=5").only()
	require.Equal(t, applier.Unchanged, r.Action)
	require.Equal(t, "limits.cpu=5", amountsOf(r.Effective))
	require.Equal(t, "limits.cpu=4", amountsOf(r.Hard))
	require.Equal(t, "a recount by kube-controller-manager has reset the limit; it is about to be written again", r.Why)
	require.Equal(t, 100*time.Millisecond, r.RequeueAfter)
	require.Equal(t, 40*time.Millisecond, s.pass(60*time.Millisecond).only().RequeueAfter)
	require.Equal(t, applier.Raised, s.pass(40*time.Millisecond).only().Action)

	require.Equal(t, time.Second, s.recount("limits.cpu=5").only().RequeueAfter)
	require.Equal(t, applier.Raised, s.pass(time.Second).only().Action)
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
			s := sceneOf(t, "limits.cpu=4", "limits.cpu=5", func(c *applier.Config) { c.Parallel = applier.Parallel{Cluster: 1} })
			s.inFlight(inFlight...).apply()
			s.pass(2 * time.Second).apply()
			writes, open := map[int]int{}, map[int]bool{}
			for ms := 0; ms < 10_000; ms += 10 {
				switch ms % 50 { // a pod ends, and the next one comes
				case 0:
					s.recount("limits.cpu=4900m")
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

// Nobody can take what an offer leaves open after it is over: it is closed at once, with the
// guard as without.
func TestAnOfferThatIsOverIsClosedAtOnce(t *testing.T) {
	for name, end := range map[string]func(s *scene){
		"it is gone":                  func(s *scene) { s.inFlight() },
		"it fits now":                 func(s *scene) { s.use("q", "limits.cpu=3") },
		"it lapses":                   func(s *scene) { s.pass(time.Second) },
		"another that was not it":     func(s *scene) { s.inFlight(blocked("b", "limits.cpu=500m")) },
		"the budget ends, and it too": func(s *scene) { s.inFlight(); s.policy = quota.Policy{Budget: list("limits.cpu=0")} },
	} {
		for scene, start := range map[string]func(t tb) *scene{
			"not guarded": full, "announced": guarded, "guarded": func(t tb) *scene {
				s := guarded(t)
				s.apply()
				s.pass(20 * time.Millisecond)
				return s
			},
		} {
			t.Run(name+", "+scene, func(t *testing.T) {
				s := start(t)
				s.apply()
				require.NotEqual(t, "limits.cpu=4", s.hard("q"))
				require.Equal(t, scene != "not guarded", s.isAnnotated())
				end(s)
				if s.apply(); !strings.HasPrefix(name, "another") {
					require.Equal(t, "limits.cpu=4", s.hard("q"))
					require.False(t, s.isAnnotated())
				}
				require.NotEqual(t, "limits.cpu=5", s.hard("q"))
			})
		}
	}
}

// What charged migrations no longer need is left to kube-controller-manager, which lowers it
// with the usage; if it is down, it is lowered after a second.
func TestChargedIsOver(t *testing.T) {
	start := func(t *testing.T) *scene {
		s := full(t)
		s.apply()
		s.use("q", "limits.cpu=6")
		s.inFlight(charged("a", "limits.cpu=1"), charged("b", "limits.cpu=1")).apply()
		require.Equal(t, "limits.cpu=6", s.hard("q"))
		s.pass(time.Minute).apply()
		s.counted()
		return s
	}
	t.Run("kube-controller-manager is up", func(t *testing.T) {
		s := start(t)
		r := s.inFlight().only()
		require.Equal(t, applier.Unchanged, r.Action)
		require.Equal(t, "kube-controller-manager is about to lower the limit with the usage", r.Why)
		require.Equal(t, 150*time.Millisecond, r.RequeueAfter)
		require.Empty(t, s.recount("limits.cpu=4").apply().Quotas)
		require.Empty(t, s.counted())
	})
	t.Run("it is down", func(t *testing.T) {
		s := start(t)
		s.inFlight(charged("a", "limits.cpu=1")).apply()
		s.pass(150*time.Millisecond).expect(applier.Lowered, "limits.cpu=5")
		s.inFlight().apply()
		require.Equal(t, applier.Unchanged, s.pass(149*time.Millisecond).only().Action)
		require.Equal(t, applier.Restored, s.pass(time.Millisecond).only().Action)
		require.Empty(t, s.apply().Quotas)
	})
	t.Run("it is up, and the other stays", func(t *testing.T) {
		s := start(t)
		s.inFlight(charged("a", "limits.cpu=1")).apply()
		require.Equal(t, 100*time.Millisecond, s.recount("limits.cpu=5").only().RequeueAfter)
		s.pass(100*time.Millisecond).expect(applier.Raised, "limits.cpu=5")
		require.Equal(t, []string{"Raised q"}, s.counted())
	})
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
			s.recount("limits.cpu=7 pods=6")
		}, "limits.cpu=7", "limits.cpu=7 pods=6"},
		{func(s *scene) { s.inFlight() }, "limits.cpu=3", "limits.cpu=4 pods=4"},
	}
	for _, mode := range [][2]bool{{}, {true, false}, {false, true}, {true, true}} {
		carriedOut, guard := mode[0], mode[1]
		for call := 1; ; call++ {
			s := newScene(t, func(c *applier.Config) { c.Guard = guard })
			s.limit("cpu", "limits.cpu=4", "limits.cpu=4")
			s.limit("q", "limits.cpu=4 pods=4", "limits.cpu=4 pods=4")
			crashed := s.crashAt(call, carriedOut)
			for i, step := range life {
				step.happens(s)
				for range 4 {
					if _, err := s.applier.Apply(s.ctx, "tenant"); err != nil {
						require.ErrorIs(t, err, errCrash)
						s.before, s.after = nil, nil
						s.restart()
						s.apply()
					}
					s.pass(20 * time.Millisecond)
					if i > 2 {
						s.pass(time.Second)
					}
				}
				at := fmt.Sprintf("step %d, call %d, carried out: %v, guard: %v", i, call, carriedOut, guard)
				require.Equal(t, step.cpu, s.hard("cpu"), at)
				require.Equal(t, step.q, s.hard("q"), at)
			}
			end := !crashed()
			s.before, s.after = nil, nil
			require.Empty(t, s.quota("q").Annotations)
			require.Empty(t, s.apply().Quotas)
			if end {
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
