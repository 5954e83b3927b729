package faults_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// A short run of what the command faults does hundreds of times, with two API servers, as
// real clusters have them: the library is on one, and everybody else on the other.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it needs a real control plane")
	}
	b, err := bed.Start(t.Context(), bed.Config{Step: 50 * time.Millisecond, APIServers: 2, Log: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Stop()) })
	stage := func(t *testing.T, program process.Program) *onbed.Stage { return newStage(t, b, program) }
	t.Run("kill", func(t *testing.T) {
		report, err := faults.Kill(t.Context(), stage(t, ""), 20, 2, 6, 1, nil)
		require.NoError(t, err)
		t.Log(report)
		require.Equal(t, 20, report.Kills)
		require.Positive(t, report.Writes)
	})
	t.Run("lock", func(t *testing.T) {
		report, err := faults.Lock(t.Context(), stage(t, ""), nil)
		require.NoError(t, err)
		t.Log(report)
	})
	t.Run("adversary", func(t *testing.T) {
		report, err := faults.Adversary(t.Context(), stage(t, ""), 6, nil)
		require.NoError(t, err)
		t.Log(report)
		require.Positive(t, report.Resets, "the adversary had nothing to reset")
	})
	t.Run("alone", func(t *testing.T) {
		report, err := faults.Alone(t.Context(), stage(t, ""), 2, nil)
		require.NoError(t, err)
		t.Log(report)
		require.Equal(t, 2, report.Migrations)
	})
	t.Run("races", func(t *testing.T) {
		// One at a time, because KubeVirt also wakes when another migration ends.
		report, err := faults.Races(t.Context(), stage(t, process.Headroom), 2, 1)
		require.NoError(t, err)
		t.Log(report)
		require.Len(t, report.Waits, 2)
		require.Positive(t, report.Nudged)
	})
	t.Run("thief", func(t *testing.T) {
		loot, err := faults.Steal(t.Context(), stage(t, process.Headroom), 3, 2*time.Second, "")
		require.NoError(t, err)
		t.Log("without the guard the thief got", loot)
		require.Positive(t, loot.Pods+loot.Refused, "the thief did not even try")
	})
	t.Run("guarded", func(t *testing.T) {
		loot, err := faults.Steal(t.Context(), stage(t, process.Guarded), 3, 2*time.Second, filepath.Join("..", "..", "controller", "guard", "policy"))
		require.NoError(t, err)
		t.Log("with the guard the thief got", loot)
		require.Positive(t, loot.Pods+loot.Refused, "the thief did not even try")
	})
	t.Run("twins", func(t *testing.T) {
		report, err := faults.Twins(t.Context(), stage(t, process.Guarded), 6, 1, 1, filepath.Join("..", "..", "controller", "guard", "policy"))
		require.NoError(t, err)
		t.Log(report)
		// On a busy machine caches may be behind for longer than the library waits for them.
		require.LessOrEqual(t, report.Admitted, 1, "while VMs migrate a tenant gets what he would not get otherwise")
		require.Positive(t, report.Answers)
	})
	// The last one, because the bed takes a while to recover.
	t.Run("restart", func(t *testing.T) {
		report, err := faults.Restart(t.Context(), stage(t, ""), 1, 6, time.Second, 1, nil)
		require.NoError(t, err)
		t.Log(report)
	})
}

// What is left when the library is gone for good, kube-controller-manager takes back.
func TestGone(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it needs a real control plane")
	}
	b, err := bed.Start(t.Context(), bed.Config{Step: 50 * time.Millisecond, QuotaSync: 10 * time.Second, Log: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Stop()) })
	report, err := faults.Gone(t.Context(), newStage(t, b, ""), nil)
	require.NoError(t, err)
	t.Log(report)
	require.Empty(t, report.Traces)
}

func newStage(t *testing.T, b *bed.Bed, program process.Program) *onbed.Stage {
	t.Helper()
	s, err := onbed.NewStage(t.Context(), b, program, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
