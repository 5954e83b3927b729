package applier_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// The API server charges the target pod before anybody can see it. That costs no write
// and no room, if the ledger learns of the pod in time.
func TestUsageRunsAhead(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=5")
	ahead := s.only()
	require.Equal(t, applier.Unchanged, ahead.Action)
	require.Equal(t, applier.Written, ahead.Reached)
	require.Equal(t, time.Second, ahead.RetryAfter)
	require.Equal(t, `{"limits.cpu":"6"}`, jsonOf(t, ahead.Decision.Hard)) // what the rule says
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	s.pass(999 * time.Millisecond)
	require.Equal(t, time.Millisecond, s.only().RetryAfter)

	s.inFlight(charged("a", "limits.cpu=1"))
	known := s.only()
	require.Equal(t, applier.Unchanged, known.Action)
	require.Zero(t, known.RetryAfter)
	s.pass(time.Hour)
	require.Equal(t, applier.Unchanged, s.only().Action)
	s.inFlight()
	s.use("q", "limits.cpu=4")
	s.apply()
	require.Equal(t, []string{"Raised q", "Restored q"}, s.counted())
	require.Empty(t, s.reasons())
}

// It holds no raise back that is needed in any case.
func TestUsageRunsAheadOfAnother(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=5")
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=2"))
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"7"}`, s.hard("q")) // not 8
	s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=2"))
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Equal(t, 2, s.updates)
}

// Usage of more than the target pods cannot be theirs: the limit follows the rest at once.
func TestUsageAboveWhatIsNeeded(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=7")
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"7"}`, s.hard("q")) // 1 of the 3 may be the pod's
	s.pass(time.Second)
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"8"}`, s.hard("q"))
}

// What stays for a second was taken by regular workloads: the migration is helped, and it
// is told once, with the amount.
func TestTheft(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=4500m")
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Empty(t, s.reasons())
	s.pass(time.Second)
	result := s.only()
	require.Equal(t, applier.Raised, result.Action)
	require.Zero(t, result.RetryAfter)
	require.Equal(t, `{"limits.cpu":"500m"}`, jsonOf(t, result.Taken))
	require.Equal(t, `{"limits.cpu":"5500m"}`, s.hard("q"))
	require.Equal(t, []string{
		"Warning HeadroomTaken Regular workloads have taken room that was there for live migrations: limits.cpu=500m above the static limits.",
	}, s.events)
	s.pass(time.Second)
	require.Equal(t, `{"limits.cpu":"500m"}`, jsonOf(t, s.only().Taken))
	require.Equal(t, []string{"Raised q", "Taken q limits.cpu=500m", "Raised q"}, s.counted())
	require.Len(t, s.reasons(), 1)

	// More is told as what it is more; less is not told.
	s.use("q", "limits.cpu=5500m")
	s.apply()
	s.pass(time.Second)
	require.Equal(t, `{"limits.cpu":"1500m"}`, jsonOf(t, s.only().Taken))
	s.use("q", "limits.cpu=4250m")
	require.Equal(t, `{"limits.cpu":"250m"}`, jsonOf(t, s.only().Taken))
	require.Equal(t, `{"limits.cpu":"5250m"}`, s.hard("q"))
	require.Equal(t, []string{"Taken q limits.cpu=1", "Raised q", "Lowered q"}, s.counted())
	s.use("q", "limits.cpu=4")
	require.Nil(t, s.only().Taken)
	require.Len(t, s.reasons(), 1)
}

// What was above static before the raise was not taken from a migration; neither was
// what an admin put above static by lowering it.
func TestUsageAboveStaticThatIsNoTheft(t *testing.T) {
	for name, scene := range map[string]func(s *scene){
		"before":    func(s *scene) { s.use("q", "limits.cpu=6"); s.apply() },
		"an edit":   func(s *scene) { s.apply(); s.write("q", "limits.cpu=2") },
		"a new key": func(s *scene) { s.use("q", "limits.cpu=4 pods=5"); s.apply(); s.write("q", "limits.cpu=5 pods=1") },
		"below it":  func(s *scene) { s.use("q", "limits.cpu=3500m"); s.apply(); s.use("q", "limits.cpu=4") },
		"a restart": func(s *scene) { s.apply(); s.use("q", "limits.cpu=5"); s.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			scene(s)
			for range 3 {
				result := s.only()
				require.Nil(t, result.Taken)
				require.Zero(t, result.RetryAfter)
				s.pass(time.Second)
			}
			require.Empty(t, s.reasons())
		})
	}
}

// Each resource has a second of its own.
func TestEachResourceSettlesByItself(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4 pods=4")
	s.use("q", "limits.cpu=4 pods=4")
	s.inFlight(blocked("a", "limits.cpu=1 pods=1"))
	s.apply()
	s.use("q", "limits.cpu=5 pods=4")
	require.Equal(t, time.Second, s.only().RetryAfter)
	s.pass(600 * time.Millisecond)
	s.use("q", "limits.cpu=5 pods=5")
	require.Equal(t, 400*time.Millisecond, s.only().RetryAfter)
	s.pass(400 * time.Millisecond)
	result := s.only()
	require.Equal(t, `{"limits.cpu":"6","pods":"5"}`, s.hard("q"))
	require.Equal(t, 600*time.Millisecond, result.RetryAfter)
	require.Equal(t, `{"limits.cpu":"1"}`, jsonOf(t, result.Taken))
}

// What comes later gets a second of its own.
func TestWhatComesLaterSettlesLater(t *testing.T) {
	s := full(t)
	s.inFlight(blocked("a", "limits.cpu=4"))
	s.apply()
	s.use("q", "limits.cpu=5")
	s.apply()
	s.pass(900 * time.Millisecond)
	s.use("q", "limits.cpu=6")
	require.Equal(t, 100*time.Millisecond, s.only().RetryAfter)
	s.pass(100 * time.Millisecond)
	result := s.only()
	require.Equal(t, `{"limits.cpu":"1"}`, jsonOf(t, result.Taken))
	require.Equal(t, `{"limits.cpu":"9"}`, s.hard("q"))
	require.Equal(t, time.Second, result.RetryAfter)
	s.pass(900 * time.Millisecond)
	require.Equal(t, `{"limits.cpu":"1"}`, jsonOf(t, s.only().Taken))
	s.pass(100 * time.Millisecond)
	require.Equal(t, `{"limits.cpu":"2"}`, jsonOf(t, s.only().Taken))
	require.Equal(t, `{"limits.cpu":"10"}`, s.hard("q"))
}

// Pods that come and go for longer than a second hide no theft, and are not taken for it.
func TestTheftAmongPods(t *testing.T) {
	for name, stolen := range map[string]string{"none": "", "one": "Taken q limits.cpu=1"} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			s.inFlight(blocked("a", "limits.cpu=2"), blocked("b", "limits.cpu=2"))
			s.apply()
			s.counted()
			used := map[bool][2]string{
				false: {"limits.cpu=6", "limits.cpu=4"},
				true:  {"limits.cpu=7", "limits.cpu=5"},
			}[stolen != ""]
			for i := range 40 { // 4 seconds of pods that come ahead of the ledger and are explained
				s.use("q", used[i%2])
				s.apply()
				s.pass(100 * time.Millisecond)
			}
			var taken []string
			for _, count := range s.counted() {
				if count[:5] == "Taken" {
					taken = append(taken, count)
				}
			}
			if stolen == "" {
				require.Empty(t, taken)
			} else {
				require.Equal(t, []string{stolen}, taken)
			}
		})
	}
}

// When a migration has ended and its pod still counts, nothing is stolen, and the limit
// comes down in one step.
func TestUsageFallsBehind(t *testing.T) {
	s := full(t)
	s.use("q", "limits.cpu=6")
	s.inFlight(charged("a", "limits.cpu=1"), charged("b", "limits.cpu=1"))
	s.apply()
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("q"))
	s.inFlight(charged("b", "limits.cpu=1"))
	require.Equal(t, applier.Unchanged, s.only().Action)
	s.pass(20 * time.Millisecond)
	s.use("q", "limits.cpu=5")
	require.Equal(t, applier.Lowered, s.only().Action)
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	require.Equal(t, 2, s.updates)
	require.Empty(t, s.reasons())
}

// Usage that is not settled keeps nothing from being lowered that no case needs.
func TestLoweringDoesNotWaitForUsage(t *testing.T) {
	s := full(t)
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=8"))
	s.apply()
	require.Equal(t, `{"limits.cpu":"13"}`, s.hard("q"))
	s.inFlight(blocked("a", "limits.cpu=1"))
	s.use("q", "limits.cpu=5")
	require.Equal(t, applier.Lowered, s.only().Action)
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("q"))
}

// With Strict, usage above static lifts nothing, but is reported.
func TestTheftUnderStrict(t *testing.T) {
	s := full(t)
	s.policy = quota.Policy{Strict: true}
	s.apply()
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	s.inFlight(charged("a", "limits.cpu=1"))
	s.use("q", "limits.cpu=6")
	s.apply()
	s.pass(time.Second)
	require.Equal(t, `{"limits.cpu":"1"}`, jsonOf(t, s.only().Taken))
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	require.Equal(t, []string{"HeadroomTaken"}, s.reasons())
}
