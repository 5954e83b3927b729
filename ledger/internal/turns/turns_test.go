package turns

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	eventually = time.Minute
	tick       = time.Millisecond
)

func TestTurns(t *testing.T) {
	var turns Turns[int]
	users := func() int {
		turns.mu.Lock()
		defer turns.mu.Unlock()
		if a := turns.byKey["a"]; a != nil {
			return a.users
		}
		return 0
	}
	ctx, stop := context.WithCancel(t.Context())
	value, done, err := turns.Take(ctx, "a")
	require.NoError(t, err)
	*value = 1

	_, other, err := turns.Take(ctx, "b") // it does not wait
	require.NoError(t, err)
	other(false)

	next := make(chan int)
	go func() {
		value, done, err := turns.Take(context.WithoutCancel(ctx), "a")
		if err == nil {
			defer done(true)
			next <- *value
		}
		close(next)
	}()
	require.Eventually(t, func() bool { return users() == 2 }, eventually, tick)
	require.Empty(t, next)
	stop()
	_, _, err = turns.Take(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	done(false)
	require.Equal(t, 1, <-next, "somebody waited for it")
	<-next
	require.Eventually(t, func() bool { return users() == 0 }, eventually, tick)

	value, done, err = turns.Take(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, 1, *value, "it was kept")
	done(false)
	value, done, err = turns.Take(t.Context(), "a")
	require.NoError(t, err)
	require.Zero(t, *value, "it was dropped")
	done(false)
	require.Empty(t, turns.byKey)
}
