//go:build unix

package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/scale/server"
)

// What the program counts is that of migrations that end with everything as it was.
func TestMigrations(t *testing.T) {
	s, err := server.New("../../migration/testdata/recordings/basic.jsonl", server.Size{Namespaces: 9, Machines: 2, Large: 3, Kept: 1})
	require.NoError(t, err)
	api, end := server.Start(s)
	defer end()
	b, err := newBench(api, 4)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, b.Start(ctx))
	go b.Work(ctx)

	counted, err := b.migrate(1, 4, 0, 2)
	require.NoError(t, err)
	require.Zero(t, counted.Raised, "quotas that are not as they were")
	require.Len(t, counted.Delays, 4)
	require.Equal(t, 12.0, counted.of("GET"), "for each one list of migrations, of VMIs and of pods")
	require.Equal(t, 12.0, counted.of("WATCH"))
	require.GreaterOrEqual(t, counted.of("PUT"), 4.0)

	counted, err = b.migrate(1, 4, 1, 4)
	require.NoError(t, err)
	require.Zero(t, counted.Raised)
	require.Zero(t, counted.of("GET")+counted.of("WATCH"), "what is watched already is not read")
}
