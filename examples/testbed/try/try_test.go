package try_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// What fails ends, is reported, and its cleanups run, the last one first, with a context that is done.
func TestRun(t *testing.T) {
	var did []string
	note := func(what string) func() { return func() { did = append(did, what) } }
	err := try.Run(t.Context(), t.Logf, func(t try.T) {
		t.Cleanup(note("first"))
		t.Cleanup(func() {
			require.ErrorIs(t, t.Context().Err(), context.Canceled)
			require.Fail(t, "a cleanup")
		})
		try.Cleanup(t, func(t try.T) {
			require.NoError(t, t.Context().Err())
			note("last")()
		})
		wait := try.Go(t, func(t try.T) { try.Must(0, errors.New("a goroutine"))(t) })
		wait()
		note("not reached")()
	})
	require.ErrorContains(t, err, "a goroutine")
	require.ErrorContains(t, err, "a cleanup")
	require.Equal(t, "last first", strings.Join(did, " "))
	require.NoError(t, try.Run(t.Context(), t.Logf, func(try.T) {}))
}

func TestEventually(t *testing.T) {
	tries := 0
	try.Eventually(t, func(t try.T) {
		tries++
		require.Equal(t, 3, tries)
	})
	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorContains(t, try.Run(ctx, t.Logf, func(t try.T) {
		try.Eventually(t, func(t try.T) {
			cancel()
			require.Fail(t, "never")
		})
	}), "never")
}
