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
	stage, err := onbed.NewStage(t.Context(), b, process.Headroom, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stage.Close()) })

	require.NoError(t, stage.Configure(t.Context(), onbed.Crowded))
	slots := make(chan struct{}, crowd)
	t.Run("crowded", func(t *testing.T) {
		for _, s := range all {
			if s.Alone {
				continue
			}
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				playOnBed(t, stage, s)
			})
		}
	})
	require.NoError(t, stage.Configure(t.Context(), onbed.Alone))
	for _, s := range all {
		if s.Alone {
			t.Run(s.Name, func(t *testing.T) { playOnBed(t, stage, s) })
		}
	}
}

func playOnBed(t *testing.T, stage *onbed.Stage, s *scenario.Scenario) {
	t.Helper()
	cluster, err := stage.Cluster(t.Context(), s)
	require.NoError(t, err)
	defer func() { require.NoError(t, cluster.Close(context.WithoutCancel(t.Context()))) }()
	end, err := scenario.Play(t.Context(), s, cluster)
	require.NoError(t, err)
	require.Equal(t, endOnFake(t, s, 0), end, "on the simulated cluster it ends otherwise")
	checkAudit(t, cluster)
}

// checkAudit finds what the objects in the end do not show.
func checkAudit(t *testing.T, cluster *onbed.Cluster) {
	t.Helper()
	events, err := cluster.Audit()
	require.NoError(t, err)
	refused := false
	for _, e := range events {
		refused = refused || onbed.Refused(e)
		if onbed.Wrote(e) {
			require.True(t, refused, "a quota was written before any pod was refused: %s", e.RequestObject)
		}
		if e.User == onbed.User && e.Resource == "resourcequotas" {
			require.Contains(t, []string{"update"}, e.Verb)
			require.NotEqual(t, int32(422), e.Code, "%s", e.Message)
		}
	}
}
