package scenarios_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onfake"
	"github.com/vmquota/headroom/examples/testbed/scenarios"
	"github.com/vmquota/headroom/examples/testbed/try"
)

func TestMain(m *testing.M) {
	process.Main()
	os.Exit(m.Run())
}

// crowd is how many scenarios share the bed at a time.
const crowd = 8

// The same scenarios on a real control plane end as they do on the simulated one.
func TestOnBed(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it needs a real control plane")
	}
	all := try.Must(scenarios.All())(t)
	b := bed.Start(t, bed.Config{Step: 50 * time.Millisecond, Log: os.Stderr})
	t.Run("in memory", func(t *testing.T) { playAll(t, b, process.Headroom, all) })
	t.Run("recorded", func(t *testing.T) { playAll(t, b, process.Recorded, all) })
}

// playAll plays the scenarios that a program is for.
func playAll(t *testing.T, b *bed.Bed, program process.Program, all []*scenario.Scenario) {
	t.Helper()
	stage := onbed.NewStage(t, b, program, nil)
	play := func(t *testing.T, alone bool, run func(t *testing.T, s *scenario.Scenario)) {
		for _, s := range all {
			if s.Alone == alone && s.Recorded == (program == process.Recorded) {
				t.Run(s.Name, func(t *testing.T) { run(t, s) })
			}
		}
	}
	stage.Configure(t, onbed.Crowded)
	slots := make(chan struct{}, crowd)
	t.Run("crowded", func(t *testing.T) {
		play(t, false, func(t *testing.T, s *scenario.Scenario) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			playOnBed(t, stage, s)
		})
	})
	stage.Configure(t, onbed.Alone)
	play(t, true, func(t *testing.T, s *scenario.Scenario) {
		stage.AwaitEmpty(t)
		playOnBed(t, stage, s)
	})
}

func playOnBed(t *testing.T, stage *onbed.Stage, s *scenario.Scenario) {
	t.Helper()
	cluster := stage.Cluster(t, s.Name)
	record(t, cluster, s.Name)
	end := scenario.Play(s, cluster)
	require.Equal(t, onfake.Play(t, s, 0), end, "on the simulated cluster it ends otherwise")
	checkWrites(t, cluster)
}

// record records the watch events of a scenario in a file, if HEADROOM_TESTBED_RECORD names a
// folder.
func record(t *testing.T, cluster *onbed.Cluster, name string) {
	t.Helper()
	if folder := os.Getenv("HEADROOM_TESTBED_RECORD"); folder != "" {
		file := try.Must(os.Create(filepath.Join(folder, name+".jsonl")))(t)
		t.Cleanup(func() { require.NoError(t, file.Close()) })
		cluster.Record(file)
	}
}

// checkWrites finds what the objects in the end do not show: nothing is written before a VM
// migrates, and nothing that the API server calls invalid.
func checkWrites(t *testing.T, cluster *onbed.Cluster) {
	t.Helper()
	audit := cluster.Audit()
	first := time.Now() // by the times of the requests: two API servers log in no order
	for _, e := range audit {
		if e.Verb == "create" && e.Resource == "virtualmachineinstancemigrations" && e.Received.Before(first) {
			first = e.Received
		}
	}
	for _, e := range audit {
		if e.User == onbed.User && e.Resource == "resourcequotas" {
			require.False(t, e.Received.Before(first), "a quota was written before any VM migrated: %s", e.RequestObject)
			require.NotEqual(t, int32(422), e.Code, "%s", e.Message)
		}
	}
}
