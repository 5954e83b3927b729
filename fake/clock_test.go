package fake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newTestClock() *clock {
	return &clock{now: epoch}
}

// drain lets everything happen.
func (c *clock) drain() {
	for c.step() {
	}
}

func TestClockOrder(t *testing.T) {
	c := newTestClock()
	var order []string
	add := func(d time.Duration, name string) *timer {
		return c.after(d, func() { order = append(order, name) })
	}
	add(2*time.Second, "later")
	add(time.Second, "first")
	add(time.Second, "second")
	stopped := add(time.Second, "stopped")
	add(-time.Hour, "at once")
	c.stop(stopped)
	c.stop(stopped)
	c.drain()
	require.Equal(t, []string{"at once", "first", "second", "later"}, order)
	require.Equal(t, 2*time.Second, c.now.Sub(epoch))
	require.False(t, c.step())
}

func TestClockSleepLetsOthersGoOn(t *testing.T) {
	c := newTestClock()
	var order []string
	c.after(time.Second, func() {
		order = append(order, "asks")
		c.sleep(2 * time.Second)
		order = append(order, "is answered")
	})
	c.after(2*time.Second, func() { order = append(order, "meanwhile") })
	c.after(4*time.Second, func() { order = append(order, "afterwards") })
	c.drain()
	require.Equal(t, []string{"asks", "meanwhile", "is answered", "afterwards"}, order)
}

func TestCoroutinesSleepSideBySide(t *testing.T) {
	c := newTestClock()
	var order []string
	for name, d := range map[string]time.Duration{"short": time.Second, "long": 10 * time.Second} {
		c.after(0, func() {
			c.start(func() {
				for range 2 {
					c.sleep(d)
					order = append(order, name+" "+c.now.Sub(epoch).String())
				}
			})
		})
	}
	c.sleep(5 * time.Second)
	require.Equal(t, []string{"short 1s", "short 2s"}, order, "the short one does not wait for the long one")
	c.drain()
	require.Equal(t, []string{"short 1s", "short 2s", "long 10s", "long 20s"}, order)
}

func TestBackoffIsThatOfClientGo(t *testing.T) {
	require.Equal(t, 5*time.Millisecond, backoff(0))
	require.Equal(t, 10*time.Millisecond, backoff(1))
	require.Equal(t, 655360*time.Millisecond, backoff(17))
	require.Equal(t, 1000*time.Second, backoff(18))
	require.Equal(t, 1000*time.Second, backoff(1000))
}

func TestQueueKeepsTheEarliest(t *testing.T) {
	c := newTestClock()
	var runs []time.Duration
	q := newQueue(c, func(string) (time.Duration, error) {
		runs = append(runs, c.now.Sub(epoch))
		return 0, nil
	})
	q.add("a", 2*time.Second)
	q.add("a", time.Second)
	q.add("a", 3*time.Second)
	q.add("b", time.Second)
	c.drain()
	require.Equal(t, []time.Duration{time.Second, time.Second}, runs)
}

func TestQueueHasOneWorker(t *testing.T) {
	c := newTestClock()
	var order []string
	q := newQueue(c, nil)
	q.work = func(key string) (time.Duration, error) {
		order = append(order, key+" begins")
		if key == "slow" {
			c.sleep(time.Minute)
		}
		order = append(order, key+" ends")
		return 0, nil
	}
	q.add("slow", 0)
	q.add("quick", time.Second)
	q.add("other", 2*time.Second)
	c.after(3*time.Second, func() { q.add("quick", 0) })
	c.drain()
	require.Equal(t, []string{"slow begins", "slow ends", "quick begins", "quick ends", "other begins", "other ends"}, order)
}

func TestQueueStops(t *testing.T) {
	c := newTestClock()
	runs := 0
	q := newQueue(c, nil)
	q.work = func(string) (time.Duration, error) {
		runs++
		c.after(0, func() { q.stop() })
		c.sleep(time.Second)
		return time.Second, nil
	}
	q.add("a", 0)
	q.add("b", 2*time.Second)
	c.drain()
	require.Equal(t, 1, runs)
}

func TestUntil(t *testing.T) {
	c := New(Config{})
	happened := false
	c.clock.after(time.Second, func() { happened = true })
	require.False(t, c.Until(999*time.Millisecond, func() bool { return happened }))
	require.Equal(t, 999*time.Millisecond, c.elapsed())
	require.True(t, c.Until(time.Hour, func() bool { return happened }))
	require.Equal(t, time.Second, c.elapsed())
	require.False(t, c.clock.step())
	require.False(t, c.Until(time.Second, func() bool { return false }))
	require.Equal(t, epoch.Add(2*time.Second), c.Now())
}

func TestDraw(t *testing.T) {
	c := New(Config{Seed: 1})
	seen := map[time.Duration]bool{}
	for range 100 {
		d := c.draw(Span{3, 5})
		require.Contains(t, []time.Duration{3, 4, 5}, d)
		seen[d] = true
	}
	require.Len(t, seen, 3)
	require.Equal(t, time.Second, c.draw(Span{time.Second, time.Second}))
	require.Zero(t, c.draw(Span{}))
}
