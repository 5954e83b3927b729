package fake

import (
	"container/heap"
	"time"
)

// A Span is a range of durations. Whenever the simulation needs one it draws one from
// it, each as likely as the others. The zero Span is no time at all.
type Span struct{ Min, Max time.Duration }

// epoch is when every simulation begins; the timestamps of objects need a date.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// A clock is simulated time with what is to happen in it, in the order of time and,
// at the same time, in the order in which it was asked for.
type clock struct {
	now    time.Time
	asked  uint64
	steps  int // how many timers have run
	timers timers
	moving func(to time.Time) // told before the time moves
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
	t, ok := heap.Pop(&c.timers).(*timer)
	if !ok {
		return false
	}
	c.move(t.at)
	c.steps++
	t.run()
	return true
}

// sleep lets d pass. Whoever calls it from within a timer is in the middle of something
// while the others go on: a call to the API server takes time.
func (c *clock) sleep(d time.Duration) {
	to := c.now.Add(d)
	for len(c.timers) > 0 && !c.timers[0].at.After(to) {
		c.step()
	}
	c.move(to)
}

func (c *clock) move(to time.Time) {
	if to.After(c.now) {
		c.moving(to)
		c.now = to
	}
}

type timers []*timer

func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	if !t[i].at.Equal(t[j].at) {
		return t[i].at.Before(t[j].at)
	}
	return t[i].order < t[j].order
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	if added, ok := x.(*timer); ok {
		added.index = len(*t)
		*t = append(*t, added)
	}
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	last := len(*t) - 1
	popped := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	popped.index = -1
	return popped
}
