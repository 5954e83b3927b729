package loop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

func nothing(context.Context, string) (time.Duration, error) { return 0, nil }

// looks are those that a Loop has made; come waits for the next one.
type looks struct {
	made chan string
	fail func(namespace string) error
}

func (l *looks) look(_ context.Context, namespace string) (time.Duration, error) {
	l.made <- namespace
	if l.fail == nil {
		return 0, nil
	}
	return 0, l.fail(namespace)
}

func (l *looks) come(t *testing.T) string {
	t.Helper()
	select {
	case namespace := <-l.made:
		return namespace
	case <-time.After(time.Minute):
		require.Fail(t, "nobody looks")
		return ""
	}
}

// run runs a Loop until the test is over.
func run(ctx context.Context, t *testing.T, config Config) (*Loop, *looks) {
	t.Helper()
	made := &looks{made: make(chan string, 10000)}
	if config.Reconcile == nil {
		config.Reconcile = made.look
	}
	l, err := New(config)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return l, made
}

func TestNewNeedsWhatItNeeds(t *testing.T) {
	for name, config := range map[string]Config{
		"nothing": {},
		"resync":  {Reconcile: nothing, Resync: -1},
		"workers": {Reconcile: nothing, Workers: -1},
	} {
		_, err := New(config)
		require.Error(t, err, name)
	}
}

func TestEventsAreLookedAt(t *testing.T) {
	l, made := run(t.Context(), t, Config{gap: time.Nanosecond})
	l.Add("")
	for i := range 100 {
		l.Add(fmt.Sprint(i % 10))
		require.Equal(t, fmt.Sprint(i%10), made.come(t))
	}
}

// What happens during a look, and during the gap after it, is one more look.
func TestBurstsCoalesce(t *testing.T) {
	gate, began := make(chan struct{}), make(chan struct{}, 100)
	l, _ := run(t.Context(), t, Config{gap: time.Nanosecond, Reconcile: func(context.Context, string) (time.Duration, error) {
		began <- struct{}{}
		<-gate
		return 0, nil
	}})
	l.Add("tenant")
	<-began
	var events sync.WaitGroup
	for range 50 {
		events.Add(1)
		go func() {
			defer events.Done()
			l.Add("tenant")
		}()
	}
	events.Wait()
	close(gate)
	<-began
	l.Add("other") // is looked at after whatever else there is for the one worker that is free
	<-began
	require.Empty(t, began)
}

func TestErrorsAreLoggedAndTriedAgain(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	failures := 2
	l, made := run(klog.NewContext(t.Context(), logger), t, Config{gap: time.Nanosecond})
	made.fail = func(string) error {
		if failures--; failures >= 0 {
			return errors.New("no route")
		}
		return nil
	}
	l.Add("tenant")
	for range 3 {
		require.Equal(t, "tenant", made.come(t))
	}
	require.Contains(t, logger.GetSink().(ktesting.Underlier).GetBuffer().String(), "no route")
}

func TestLooksAgainWhenAsked(t *testing.T) {
	count := 0
	done := make(chan struct{})
	l, _ := run(t.Context(), t, Config{gap: time.Nanosecond, Reconcile: func(context.Context, string) (time.Duration, error) {
		if count++; count == 3 {
			close(done)
			return 0, nil
		}
		return time.Millisecond, nil
	}})
	l.Add("tenant")
	<-done
}

// A resync finds what no event told of.
func TestResyncLooksAtAllNamespaces(t *testing.T) {
	known := make(chan []string, 1)
	known <- []string{"a"}
	names := []string(nil)
	_, made := run(t.Context(), t, Config{
		gap: time.Nanosecond, spread: time.Nanosecond, Resync: time.Millisecond,
		Namespaces: func() ([]string, error) {
			select {
			case names = <-known:
			default:
			}
			return names, nil
		},
	})
	require.Equal(t, "a", made.come(t))
	known <- []string{"b"}
	next := made.come(t)
	for next != "b" {
		next = made.come(t)
	}
}

func TestNamespacesThatCannotBeListedAreLogged(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	l, made := run(klog.NewContext(t.Context(), logger), t, Config{Namespaces: func() ([]string, error) { return nil, errors.New("not synced") }})
	l.Add("tenant")
	require.Equal(t, "tenant", made.come(t))
	require.Eventually(t, func() bool {
		return strings.Contains(logger.GetSink().(ktesting.Underlier).GetBuffer().String(), "not synced")
	}, time.Minute, time.Millisecond, "a namespace does not wait for the list")
}

// Run waits for looks that have begun.
func TestRunReturnsAfterTheLastLook(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	ended := false
	l, err := New(Config{Reconcile: func(ctx context.Context, _ string) (time.Duration, error) {
		stop()
		<-ctx.Done()
		ended = true
		return 0, nil
	}})
	require.NoError(t, err)
	l.Add("tenant")
	l.Run(ctx)
	require.True(t, ended)
}

func TestHandler(t *testing.T) {
	l, err := New(Config{
		Reconcile: nothing, spread: time.Hour,
		Urgent: func(object any) bool { return object.(*corev1.Pod).Name == "urgent" },
	})
	require.NoError(t, err)
	pod := func(namespace, name, version string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}}
	}
	h := l.Handler(func(object any) string {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		return object.(*corev1.Pod).Namespace
	})
	due := func() string {
		if l.queue.Len() == 0 {
			return ""
		}
		namespace, _ := l.queue.Get()
		l.queue.Done(namespace)
		return namespace
	}
	h.OnAdd(pod("", "of nothing that counts", ""), false)
	require.Empty(t, due())
	h.OnAdd(pod("created", "x", "1"), false)
	require.Equal(t, "created", due())
	h.OnAdd(pod("first", "urgent", "1"), true)
	require.Equal(t, "first", due())
	h.OnAdd(pod("old", "x", "1"), true)
	require.Empty(t, due(), "the initial list is spread")
	h.OnUpdate(pod("resynced", "x", "1"), pod("resynced", "x", "1"))
	require.Empty(t, due())
	h.OnUpdate(pod("changed", "x", "1"), pod("changed", "x", "2"))
	require.Equal(t, "changed", due())
	h.OnUpdate(pod("unversioned", "x", ""), pod("unversioned", "x", ""))
	require.Equal(t, "unversioned", due())
	h.OnDelete(cache.DeletedFinalStateUnknown{Obj: pod("deleted", "x", "2")})
	require.Equal(t, "deleted", due())
}

// The gap after the beginning of a reconcile holds events back, and none is lost.
func TestGap(t *testing.T) {
	l, made := run(t.Context(), t, Config{gap: 100 * time.Millisecond})
	l.Add("tenant")
	require.Equal(t, "tenant", made.come(t))
	for range 50 {
		l.Add("tenant")
	}
	require.Zero(t, l.queue.Len(), "held back")
	require.Equal(t, "tenant", made.come(t))
	require.Empty(t, made.made)
}

// The places within the spread depend on the process, and are different for most names.
func TestInitialListIsSpread(t *testing.T) {
	l, made := run(t.Context(), t, Config{spread: time.Hour, Namespaces: func() ([]string, error) {
		var names []string
		for i := range 10000 {
			names = append(names, fmt.Sprintf("tenant-%d", i))
		}
		return names, nil
	}})
	l.Add("tenant-7") // an event does not wait
	require.Equal(t, "tenant-7", made.come(t))
	require.Less(t, len(made.made), 500, "an hour's worth of reconciles came at once")
}
