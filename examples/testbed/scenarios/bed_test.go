package scenarios_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/scenarios"
)

// crowd is how many scenarios share the bed at a time.
const crowd = 8

// The same scenarios on a real control plane end as they do on the simulated one.
func TestOnBed(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it needs a real control plane")
	}
	all, err := scenarios.All()
	require.NoError(t, err)
	b, err := bed.Start(t.Context(), bed.Config{Step: 50 * time.Millisecond, Log: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Stop()) })
	t.Run("in memory", func(t *testing.T) { playAll(t, b, process.Headroom, all) })
	t.Run("recorded", func(t *testing.T) { playAll(t, b, process.Recorded, all) })
}

// playAll plays the scenarios that a program is for.
func playAll(t *testing.T, b *bed.Bed, program process.Program, all []*scenario.Scenario) {
	t.Helper()
	stage, err := onbed.NewStage(t.Context(), b, program, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stage.Close()) })
	play := func(t *testing.T, alone bool, run func(t *testing.T, s *scenario.Scenario)) {
		for _, s := range all {
			if s.Alone == alone && s.Recorded == (program == process.Recorded) {
				t.Run(s.Name, func(t *testing.T) { run(t, s) })
			}
		}
	}
	require.NoError(t, stage.Configure(t.Context(), onbed.Crowded))
	slots := make(chan struct{}, crowd)
	t.Run("crowded", func(t *testing.T) {
		play(t, false, func(t *testing.T, s *scenario.Scenario) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			playOnBed(t, stage, s)
		})
	})
	require.NoError(t, stage.Configure(t.Context(), onbed.Alone))
	play(t, true, func(t *testing.T, s *scenario.Scenario) {
		require.NoError(t, stage.AwaitEmpty(t.Context()))
		playOnBed(t, stage, s)
	})
}

func playOnBed(t *testing.T, stage *onbed.Stage, s *scenario.Scenario) {
	t.Helper()
	cluster, err := stage.Cluster(t.Context(), s)
	require.NoError(t, err)
	defer func() { require.NoError(t, cluster.Close(context.WithoutCancel(t.Context()))) }()
	end, err := scenario.Play(t.Context(), s, cluster)
	require.NoError(t, err)
	require.Equal(t, endOnFake(t, s, 0), end, "on the simulated cluster it ends otherwise")
	checkWrites(t, cluster)
}

// checkWrites finds what the objects in the end do not show: nothing is written before a VM
// migrates, and nothing that the API server calls invalid.
func checkWrites(t *testing.T, cluster *onbed.Cluster) {
	t.Helper()
	events, err := cluster.Audit()
	require.NoError(t, err)
	migrates := false
	for _, e := range events {
		migrates = migrates || e.Verb == "create" && e.Resource == "virtualmachineinstancemigrations"
		if e.User == onbed.User && e.Resource == "resourcequotas" {
			require.True(t, migrates, "a quota was written before any VM migrated: %s", e.RequestObject)
			require.NotEqual(t, int32(422), e.Code, "%s", e.Message)
		}
	}
}
