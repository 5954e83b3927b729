// Package try lets a command do what is written like a test.
package try

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is how long anything is waited for.
const Patience = 4 * time.Minute

// T is what a test and what [Run] runs have in common.
type T interface {
	require.TestingT
	Helper()
	Context() context.Context
	Cleanup(func())
	Logf(format string, args ...any)
}

// An attempt is a T outside of a test. It belongs to one goroutine.
type attempt struct {
	ctx      context.Context
	logf     func(format string, args ...any)
	failed   []error
	cleanups []func()
}

// Run calls do, and returns the errors that do reported. Do ends at the first FailNow, and so
// does each cleanup. The context of do is done before its cleanups run.
func Run(ctx context.Context, logf func(format string, args ...any), do func(T)) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{ctx: ctx, logf: logf}
	a.run(func() { do(a) })
	cancel()
	for len(a.cleanups) > 0 {
		last := len(a.cleanups) - 1
		cleanup := a.cleanups[last]
		a.cleanups = a.cleanups[:last]
		a.run(cleanup)
	}
	return errors.Join(a.failed...)
}

// Go calls do in a goroutine of its own. Wait waits until do has returned, and fails t if do
// has failed. When t ends before, do is waited for as well.
func Go(t T, do func(T)) (wait func()) {
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = Run(t.Context(), t.Logf, do)
	}()
	t.Cleanup(func() { <-ended })
	return func() {
		t.Helper()
		<-ended
		require.NoError(t, err)
	}
}

// Eventually calls condition until it does not fail. It fails t with what condition said last,
// after [Patience] or when the context of t is done.
func Eventually(t T, condition func(c T)) {
	t.Helper()
	for end := time.Now().Add(Patience); ; {
		err := Run(t.Context(), t.Logf, condition)
		if err == nil {
			return
		}
		if time.Now().After(end) || t.Context().Err() != nil {
			require.NoError(t, err, "waited in vain")
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Cleanup has do called when t ends, with a T whose context is not done.
func Cleanup(t T, do func(T)) {
	t.Cleanup(func() { require.NoError(t, Run(context.WithoutCancel(t.Context()), t.Logf, do)) })
}

// Must returns what a call has returned, in Must(call())(t). It fails t if err is not nil.
func Must[V any](v V, err error) func(t require.TestingT) V {
	return func(t require.TestingT) V {
		if h, ok := t.(interface{ Helper() }); ok {
			h.Helper()
		}
		require.NoError(t, err)
		return v
	}
}

// Sleep waits for d. It fails t if the context of t is done before.
func Sleep(t T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
		require.NoError(t, t.Context().Err())
	case <-time.After(d):
	}
}

func (a *attempt) run(f func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	<-ended
}

func (a *attempt) Errorf(format string, args ...any) {
	a.failed = append(a.failed, fmt.Errorf(format, args...))
}
func (a *attempt) FailNow()                        { runtime.Goexit() }
func (a *attempt) Helper()                         {}
func (a *attempt) Context() context.Context        { return a.ctx }
func (a *attempt) Cleanup(f func())                { a.cleanups = append(a.cleanups, f) }
func (a *attempt) Logf(format string, args ...any) { a.logf(format, args...) }
