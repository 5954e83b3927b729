package fake

import (
	"container/heap"
	"iter"
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
	steps  int // how many timers have run
	timers timers
	yield  func(time.Duration) bool // of the coroutine that runs; nil: none does
}

type timer struct {
	at    time.Time
	order uint64
	run   func()
	index int // in timers; -1: not there
}

// after runs run when d has passed; a negative d is none.
func (c *clock) after(d time.Duration, run func()) *timer {
	c.asked++
	t := &timer{at: c.now.Add(max(d, 0)), order: c.asked, run: run}
	heap.Push(&c.timers, t)
	return t
}

// stop cancels t if it has not run yet.
func (c *clock) stop(t *timer) {
	if t.index >= 0 {
		heap.Remove(&c.timers, t.index)
	}
}

// step runs what is next, and reports whether there was anything.
func (c *clock) step() bool {
	if len(c.timers) == 0 {
		return false
	}
	t, _ := heap.Pop(&c.timers).(*timer)
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
	for len(c.timers) > 0 && !c.timers[0].at.After(to) {
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

type timers []*timer

func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	return t[i].at.Before(t[j].at) || t[i].at.Equal(t[j].at) && t[i].order < t[j].order
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	added, _ := x.(*timer)
	added.index = len(*t)
	*t = append(*t, added)
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	last := len(*t) - 1
	popped := (*t)[last]
	*t = (*t)[:last]
	popped.index = -1
	return popped
}
