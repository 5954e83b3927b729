package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Schedules as rapid draws them, and makes them shorter when one breaks an invariant.
func TestSchedules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRun(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) }, whole)
		r.act(rapid.IntRange(1, 15).Draw(t, "actions"))
		wrong := r.broken()
		if len(wrong) == 0 {
			wrong = r.end()
		}
		if len(wrong) > 0 {
			t.Fatalf("%s\n\nactions:\n  %s", strings.Join(wrong, "\n\n"), strings.Join(r.log, "\n  "))
		}
	})
}

func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) string {
		r, wrong := options{actions: 20}.once(seed, whole, nil)
		return strings.Join(append(append(r.log, wrong...), r.History()...), "\n")
	}
	require.Equal(t, run(3), run(3))
	require.NotEqual(t, run(3), run(4))
}

func TestProve(t *testing.T) {
	var out, errors bytes.Buffer
	require.Equal(t, exitOK, prove([]string{"-runs", "2", "-actions", "5", "-seed", "7", "-v"}, &out, &errors))
	require.Regexp(t, `(?s)^seed 7\n  1m.*seed 8\n.*\n2 runs, \d+ steps, of which 10 are actions: no invariant was broken \(seeds 7 to 8, \d+s\)\n$`, out.String())
	require.Empty(t, errors.String())

	require.Equal(t, exitOK, prove([]string{"-h"}, &out, &errors))
	require.Equal(t, exitUsage, prove([]string{"-x"}, &out, &errors))
	require.Equal(t, exitUsage, prove([]string{"-without", "gravity"}, &out, &errors))
	require.Contains(t, errors.String(), `there is no "gravity" to take out`)
}
