package scenarios_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onfake"
	"github.com/vmquota/headroom/examples/testbed/scenarios"
)

// seeds is with how many every scenario is played on the simulated cluster. Each of them
// is another order of events.
const seeds = 10

func TestOnFake(t *testing.T) {
	all, err := scenarios.All()
	require.NoError(t, err)
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			first := endOnFake(t, s, 0)
			for seed := uint64(1); seed < seeds; seed++ {
				require.Equal(t, first, endOnFake(t, s, seed), "seed %d", seed)
			}
		})
	}
}

func endOnFake(t *testing.T, s *scenario.Scenario, seed uint64) scenario.End {
	t.Helper()
	cluster, err := onfake.New(s, seed)
	require.NoError(t, err)
	end, err := scenario.Play(t.Context(), s, cluster)
	require.NoError(t, err, "seed %d", seed)
	require.Empty(t, cluster.Violations(), "seed %d", seed)
	return end
}
