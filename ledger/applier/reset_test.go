package applier_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/ledger/applier"
)

// A raise that is reset is made again, at once at first and then with growing pauses.
func TestResetAgainAndAgain(t *testing.T) {
	s := full(t)
	s.apply()
	var pauses []time.Duration
	for n := 1; n <= 9; n++ {
		s.write("q", "limits.cpu=4")
		result := s.only()
		pauses = append(pauses, result.RetryAfter)
		require.Equal(t, n, result.Resets)
		if result.RetryAfter > 0 {
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, applier.Pending, result.Reached)
			s.pass(result.RetryAfter - time.Millisecond)
			result = s.only()
			require.Equal(t, time.Millisecond, result.RetryAfter)
			require.Equal(t, n, result.Resets)
			require.Equal(t, `{"limits.cpu":"4"}`, s.hard("q"))
			s.pass(time.Millisecond)
			result = s.only()
		}
		require.Equal(t, applier.Raised, result.Action)
		require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
	}
	second := time.Second
	require.Equal(t, []time.Duration{
		0, second, 2 * second, 4 * second, 8 * second, 16 * second, 32 * second, 60 * second, 60 * second,
	}, pauses)
	require.Equal(t, slices.Repeat([]string{"HeadroomReset"}, 9), s.reasons())

	// It is forgotten after a quiet time, and not before.
	s.pass(2*time.Minute - time.Millisecond)
	require.Equal(t, 9, s.only().Resets)
	s.write("q", "limits.cpu=4")
	require.Equal(t, 60*second, s.only().RetryAfter)
	s.pass(time.Minute)
	require.Equal(t, applier.Raised, s.only().Action)
	s.pass(2 * time.Minute)
	require.Zero(t, s.only().Resets)
	s.write("q", "limits.cpu=4")
	result := s.only()
	require.Equal(t, applier.Raised, result.Action)
	require.Equal(t, 1, result.Resets)
}

// The pauses do not keep it from ending: what is reset is static already.
func TestAResetWhenNothingIsGrantedAnyMore(t *testing.T) {
	s := full(t)
	before := s.quota("q")
	for range 3 {
		s.apply()
		s.write("q", "limits.cpu=4")
	}
	s.inFlight()
	require.Equal(t, applier.Restored, s.only().Action)
	s.requireUntouched(before)

	// They are remembered for the next migration.
	s.inFlight(blocked("b", "limits.cpu=1"))
	s.apply()
	s.write("q", "limits.cpu=4")
	require.Positive(t, s.only().RetryAfter)
}

// Part of a raise that is reset is a reset as well.
func TestPartOfARaiseIsReset(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4 pods=4")
	s.use("q", "limits.cpu=4 pods=4")
	s.inFlight(blocked("a", "limits.cpu=1 pods=1"))
	s.apply()
	s.write("q", "limits.cpu=4 pods=5")
	result := s.only()
	require.Equal(t, applier.Raised, result.Action)
	require.Equal(t, 1, result.Resets)
}

// While another replica undoes the resets, each of them is still counted.
func TestResetThatSomebodyElseUndoes(t *testing.T) {
	s := full(t)
	s.apply()
	for n := 1; n <= 3; n++ {
		s.write("q", "limits.cpu=4")
		require.Equal(t, n, s.only().Resets)
		s.write("q", "limits.cpu=5")
		require.Equal(t, n, s.only().Resets)
	}
}

// A lower limit is no reset: it is written at once, and without an event.
func TestLoweringIsNoReset(t *testing.T) {
	s := full(t)
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"))
	s.apply()
	s.inFlight(blocked("a", "limits.cpu=1"))
	result := s.only()
	require.Equal(t, applier.Lowered, result.Action)
	require.Zero(t, result.Resets)
	require.Empty(t, s.reasons())
}
