package fake

import (
	"slices"
	"time"
)

// backoff returns how long a controller waits after the n-th failure in a row, n from 0. It is that of
// client-go's default rate limiter, which KubeVirt uses too.
func backoff(n int) time.Duration {
	return min(5*time.Millisecond<<min(n, 18), 1000*time.Second)
}

// A queue is the work queue of a controller with one worker. client-go's own needs goroutines, and starts them
// in no order.
type queue struct {
	clock *clock
	// work reconciles key. It is called again after again, if that is positive, or after an error, with a
	// back-off.
	work func(key string) (again time.Duration, err error)

	due      map[string]*timer
	failures map[string]int
	busy     bool
	stopped  bool
	waiting  []string // came due while the worker was busy
}

func newQueue(c *clock, work func(key string) (time.Duration, error)) *queue {
	return &queue{clock: c, work: work, due: map[string]*timer{}, failures: map[string]int{}}
}

// add asks for key after d, or earlier if that was asked for already.
func (q *queue) add(key string, d time.Duration) {
	if q.stopped {
		return
	}
	if t := q.due[key]; t != nil {
		if !t.at.After(q.clock.now.Add(d)) {
			return
		}
		q.clock.stop(t)
	}
	q.due[key] = q.clock.after(d, func() {
		delete(q.due, key)
		switch {
		case !q.busy:
			q.busy = true
			q.clock.start(func() { q.take(key) })
		case !slices.Contains(q.waiting, key):
			q.waiting = append(q.waiting, key)
		}
	})
}

func (q *queue) take(key string) {
	again, err := q.work(key)
	if err != nil {
		again = backoff(q.failures[key])
		q.failures[key]++
	} else {
		delete(q.failures, key)
	}
	if again > 0 {
		q.add(key, again)
	}
	q.rest()
}

// rest ends the worker's work on a key, and takes up what came due meanwhile.
func (q *queue) rest() {
	q.busy = false
	waiting := q.waiting
	q.waiting = nil
	for _, key := range waiting {
		q.add(key, 0)
	}
}

// stop ends the queue for ever.
func (q *queue) stop() {
	q.stopped = true
	for _, t := range q.due {
		q.clock.stop(t)
	}
	clear(q.due)
}
