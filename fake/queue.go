package fake

import (
	"slices"
	"time"
)

// The back-off of client-go's default rate limiter, which KubeVirt uses too.
const (
	firstBackoff = 5 * time.Millisecond
	maxBackoff   = 1000 * time.Second
)

// backoff returns how long a controller waits after the n-th failure in a row, n from 0.
func backoff(n int) time.Duration {
	if n > 17 {
		return maxBackoff
	}
	return min(firstBackoff<<n, maxBackoff)
}

// A queue is the work queue of a controller with one worker.
type queue struct {
	clock *clock
	// work does what key stands for. It is called again after again, if that is
	// positive, or after an error, with a back-off.
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
		q.take(key)
	})
}

func (q *queue) take(key string) {
	if q.busy {
		if !slices.Contains(q.waiting, key) {
			q.waiting = append(q.waiting, key)
		}
		return
	}
	q.busy = true
	again, err := q.work(key)
	switch {
	case err != nil:
		q.add(key, backoff(q.failures[key]))
		q.failures[key]++
	case again > 0:
		delete(q.failures, key)
		q.add(key, again)
	default:
		delete(q.failures, key)
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
	q.due = map[string]*timer{}
}
