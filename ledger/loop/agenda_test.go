package loop

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)

func TestNothingIsMissedAndBurstsAreFew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gap := time.Duration(rapid.IntRange(1, 50).Draw(t, "gap"))
		a, now := newAgenda(gap), start
		names := []string{"a", "b", "c"}
		asked, began, looks, busy := map[string]time.Time{}, map[string]time.Time{}, map[string]int{}, map[string]bool{}
		first := map[string]time.Time{}
		look := func() bool {
			namespace, wait := a.next(now)
			if namespace == "" {
				if wait < 0 {
					t.Fatalf("waits for %v", wait)
				}
				return false
			}
			if busy[namespace] {
				t.Fatalf("%s is looked at twice at the same time", namespace)
			}
			if last, ok := began[namespace]; ok && now.Sub(last) < gap {
				t.Fatalf("%s is looked at %v after the last time, before the gap of %v", namespace, now.Sub(last), gap)
			}
			busy[namespace], began[namespace] = true, now
			looks[namespace]++
			delete(asked, namespace)
			return true
		}
		done := func(namespace string, again time.Duration, err error) {
			if !busy[namespace] {
				return
			}
			a.done(namespace, now, again, err)
			busy[namespace] = false
			if err != nil || again > 0 {
				asked[namespace] = now
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"event": func(t *rapid.T) {
				namespace := rapid.SampledFrom(names).Draw(t, "namespace")
				a.want(namespace, now)
				asked[namespace] = now
				if first[namespace].IsZero() {
					first[namespace] = now
				}
			},
			"look": func(*rapid.T) { look() },
			"done": func(t *rapid.T) {
				again := time.Duration(rapid.IntRange(0, 20).Draw(t, "again"))
				done(rapid.SampledFrom(names).Draw(t, "namespace"), again, nil)
			},
			"fail":  func(t *rapid.T) { done(rapid.SampledFrom(names).Draw(t, "namespace"), 0, errors.New("no")) },
			"later": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "time"))) },
			"sweep": func(*rapid.T) { a.sweep(now) },
			"": func(t *rapid.T) {
				for name, n := range looks {
					if most := 1 + int(now.Sub(start)/gap); n > most {
						t.Fatalf("%d looks at %s, more than the gap allows: %d", n, name, most)
					}
				}
			},
		})
		// In the end all that was asked for is looked at, however long the pauses are.
		for name := range busy {
			done(name, 0, nil)
		}
		for range 10 {
			now = now.Add(2 * maxPause)
			for look() {
			}
			for name := range busy {
				done(name, 0, nil)
			}
		}
		require.Empty(t, asked, "never looked at after the last event")
		a.sweep(now)
		require.Empty(t, a.items)
		require.Empty(t, a.due)
	})
}

// Fifty migrations start within a second, each with five events: of the observer's
// namespace alone that would be 250 looks.
func TestABurstCostsAHandful(t *testing.T) {
	a, looks := newAgenda(DefaultGap), 0
	for i := range 250 {
		now := start.Add(time.Duration(i) * 4 * time.Millisecond)
		a.want("tenant", now)
		if namespace, _ := a.next(now); namespace != "" {
			looks++
			a.done(namespace, now, 0, nil)
		}
	}
	require.Equal(t, 5, looks)
	namespace, _ := a.next(start.Add(2 * time.Second))
	require.Equal(t, "tenant", namespace, "the last events are looked at, too")
}

func TestPausesAfterErrorsGrow(t *testing.T) {
	a, now := newAgenda(time.Millisecond), start
	a.want("tenant", now)
	var pauses []time.Duration
	for range 12 {
		namespace, wait := a.next(now)
		if namespace == "" {
			pauses = append(pauses, wait)
			now = now.Add(wait)
			namespace, _ = a.next(now)
		}
		require.Equal(t, "tenant", namespace)
		a.done("tenant", now, 0, errors.New("no"))
	}
	const ms = time.Millisecond
	require.Equal(t, []time.Duration{
		100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 51200 * ms, time.Minute,
	}, pauses)

	a.want("tenant", now.Add(ms)) // an event does not wait for a pause
	namespace, _ := a.next(now.Add(ms))
	require.Equal(t, "tenant", namespace)
	a.done("tenant", now, 0, nil)
	a.want("tenant", now.Add(2*ms))
	_, _ = a.next(now.Add(2 * ms))
	a.done("tenant", now.Add(2*ms), 0, errors.New("no"))
	_, wait := a.next(now.Add(2 * ms))
	require.Equal(t, 100*ms, wait, "a success makes the pauses short again")
}

// A cold start over ten thousand namespaces, as Loop.all puts them on the agenda.
func TestColdStartIsSpread(t *testing.T) {
	l, err := New(Config{Look: nothing, Now: func() time.Time { return start }, Spread: 30 * time.Second, Namespaces: func() ([]string, error) {
		var names []string
		for i := range 10000 {
			names = append(names, fmt.Sprintf("tenant-%d", i))
		}
		return names, nil
	}})
	require.NoError(t, err)
	l.all(t.Context(), l.config.Spread)
	l.Add("tenant-7") // something has happened there
	atOnce := map[string]bool{}
	for namespace, _ := l.agenda.next(start); namespace != ""; namespace, _ = l.agenda.next(start) {
		atOnce[namespace] = true
		l.agenda.done(namespace, start, 0, nil)
	}
	require.Contains(t, atOnce, "tenant-7")
	require.Less(t, len(atOnce), 10, "only those whose turn it is by chance")

	bySecond := make([]int, 30)
	for i := range bySecond {
		for {
			namespace, _ := l.agenda.next(start.Add(time.Duration(i+1) * time.Second))
			if namespace == "" {
				break
			}
			bySecond[i]++
			l.agenda.done(namespace, start.Add(time.Duration(i+1)*time.Second), 0, nil)
		}
	}
	total := 0
	for _, n := range bySecond {
		require.Less(t, n, 500, "of 10000 in 30 seconds: %v", bySecond)
		total += n
	}
	require.Equal(t, 10000, len(atOnce)+total)
}
