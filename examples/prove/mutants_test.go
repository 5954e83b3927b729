package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Every mechanism that is taken out is missed by some schedule. The seeds are those of the
// first schedule that does; where the simulation changes, others have to be looked for:
//
//	go -C examples/prove run . -without held -runs 500
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed < 300; seed++ {
				if _, wrong := (options{actions: 60}).once(seed, m, nil); len(wrong) > 0 {
					t.Logf("without %s: seed %d: %.200s", m.lacks, seed, wrong[0])
					return
				}
			}
			require.Fail(t, "no schedule misses "+m.lacks)
		})
	}
}
