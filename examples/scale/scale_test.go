//go:build unix

package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the program prints about writes is that of migrations that begin refused and end
// with everything as it was.
func TestMigrations(t *testing.T) {
	patterns, err := readPatterns("../../migration/testdata/recordings/basic.jsonl")
	require.NoError(t, err)
	c := newCluster(patterns, 3)
	for i := range 4 {
		require.NoError(t, c.fill(i))
	}
	keeper, err := c.keeper()
	require.NoError(t, err)
	for _, step := range []struct {
		phase           phase
		quotas, records int // writes until then
		raised          int
	}{
		{blocked, 2, 2, 2},
		{charged, 2, 4, 2},
		{over, 4, 6, 0},
	} {
		for i := range 2 {
			require.NoError(t, c.migrate(i, step.phase))
		}
		for i := range 4 {
			_, err := keeper.Keep(context.Background(), namespaceName(i))
			require.NoError(t, err)
		}
		require.Equal(t, step.quotas, c.written.quotas)
		require.Equal(t, step.records, c.written.records)
		require.Equal(t, step.raised, c.changed())
	}
	require.Empty(t, c.records.ListKeys())
	require.Positive(t, c.written.largestRecord)
}
