package fake

import (
	"cmp"
	"iter"
	"slices"
	"time"
)

// A Span is a range of durations, from which the simulation draws evenly. The zero Span is no time at all.
type Span struct{ Min, Max time.Duration }

// epoch is when every simulation begins; the timestamps of objects need a date.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// A clock is simulated time and what is to happen in it, in the order of time and, at the same time, in the
// order in which it was asked for.
type clock struct {
	now    time.Time
	asked  uint64
	steps  int                      // how many timers have run
	timers []*timer                 // what is next is last
	yield  func(time.Duration) bool // of the coroutine that runs; nil: none does
}

// Now is for client-go.
func (c *clock) Now() time.Time { return c.now }

// Since is for client-go.
func (c *clock) Since(t time.Time) time.Duration { return c.now.Sub(t) }

type timer struct {
	at    time.Time
	order uint64
	run   func()
}

// after runs run when d has passed; a negative d is none.
func (c *clock) after(d time.Duration, run func()) *timer {
	c.asked++
	t := &timer{at: c.now.Add(max(d, 0)), order: c.asked, run: run}
	i, _ := c.search(t)
	c.timers = slices.Insert(c.timers, i, t)
	return t
}

func (c *clock) search(t *timer) (int, bool) {
	return slices.BinarySearchFunc(c.timers, t, func(a, b *timer) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(b.order, a.order))
	})
}

// stop cancels t if it has not run yet.
func (c *clock) stop(t *timer) {
	if i, waits := c.search(t); waits {
		c.timers = slices.Delete(c.timers, i, i+1)
	}
}

// nextBy reports whether anything is to happen at or before that time.
func (c *clock) nextBy(at time.Time) bool {
	n := len(c.timers)
	return n > 0 && !c.timers[n-1].at.After(at)
}

// step runs what is next, and reports whether there was anything.
func (c *clock) step() bool {
	last := len(c.timers) - 1
	if last < 0 {
		return false
	}
	t := c.timers[last]
	c.timers = slices.Delete(c.timers, last, last+1)
	c.now = later(c.now, t.at)
	c.steps++
	t.run()
	return true
}

// start runs work as a coroutine: while it sleeps, the others go on.
func (c *clock) start(work func()) {
	var own func(time.Duration) bool
	next, _ := iter.Pull(func(yield func(time.Duration) bool) {
		own, c.yield = yield, yield
		work()
	})
	var resume func()
	resume = func() {
		outer := c.yield
		c.yield = own
		d, sleeps := next()
		c.yield = outer
		if sleeps {
			c.after(d, resume)
		}
	}
	resume()
}

// sleep lets d pass.
func (c *clock) sleep(d time.Duration) {
	if c.yield != nil {
		c.yield(d)
		return
	}
	to := c.now.Add(d)
	for c.nextBy(to) {
		c.step()
	}
	c.now = later(c.now, to)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
