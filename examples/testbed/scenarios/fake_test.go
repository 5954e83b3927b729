package scenarios_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario/onfake"
	"github.com/vmquota/headroom/examples/testbed/scenarios"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// seeds is with how many every scenario is played on the simulated cluster. Each of them
// is another order of events.
const seeds = 10

func TestOnFake(t *testing.T) {
	all := try.Must(scenarios.All())(t)
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			first := onfake.Play(t, s, 0)
			for seed := uint64(1); seed < seeds; seed++ {
				require.Equal(t, first, onfake.Play(t, s, seed), "seed %d", seed)
			}
		})
	}
}
