package applier

import (
	"encoding/json"
	"time"
)

const (
	// A raise that is reset is made again at once; if that is reset too, after a pause,
	// and so on. A second writer that acts with some latency, and on what it has done
	// itself, comes to rest as soon as a pause is longer than its latency.
	firstResetPause = time.Second
	maxResetPause   = time.Minute
	// quietTime is for how long a raise must have stood for its reset to be the first
	// again. It is longer than the longest pause.
	quietTime = 2 * time.Minute

	// A write that is refused is tried again, because RBAC and webhooks are repaired
	// without a change of the quota.
	firstRefusalPause = 5 * time.Second
	maxRefusalPause   = 5 * time.Minute
)

// doubling returns first, twice that, and so on for n = 0, 1, ..., up to limit.
func doubling(n int, first, limit time.Duration) time.Duration {
	pause := first
	for ; n > 0 && pause < limit; n-- {
		pause *= 2
	}
	return min(pause, limit)
}

// resetPause is how long to wait before a raise is made again that was reset for the
// n-th time in a row, n from 1.
func resetPause(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return doubling(n-2, firstResetPause, maxResetPause)
}

// resets are those of a raise by another writer.
type resets struct {
	count  int       // in a row
	undone bool      // the last one is not raised again yet
	until  time.Time // no raise before
	raised time.Time // when it was last written
}

// see takes notice of a reset, and reports whether it is a new one.
func (r *resets) see(now time.Time, pause func(n int) time.Duration) bool {
	if r.undone {
		return false
	}
	if r.quiet(now) {
		r.count = 0
	}
	r.count++
	r.undone, r.until = true, now.Add(pause(r.count))
	return true
}

func (r *resets) wrote(now time.Time) { r.undone, r.raised = false, now }

// quiet reports whether the last raise is so long ago that the resets are forgotten.
func (r *resets) quiet(now time.Time) bool { return now.Sub(r.raised) >= quietTime }

// inARow returns how many resets there were, as far as they are not forgotten.
func (r *resets) inARow(now time.Time) int {
	if !r.undone && r.quiet(now) {
		return 0
	}
	return r.count
}

// refusals are those of our writes by the API server. The zero value has none.
type refusals struct {
	count         int
	until         time.Time // no attempt before
	err           error     // of the last one
	circumstances string    // in which it was refused
}

// add takes notice of a refusal, and reports whether it is the first of an episode.
func (r *refusals) add(v *view, err error) bool {
	pause := doubling(r.count, firstRefusalPause, maxRefusalPause)
	r.count++
	r.until, r.err, r.circumstances = v.now.Add(pause), err, v.circumstances()
	return r.count == 1
}

// holds reports whether it is too early for the next attempt.
func (r *refusals) holds(now time.Time) bool { return r.count > 0 && now.Before(r.until) }

// hold returns for how long not to try, zero if now. Other circumstances are worth a try.
func (r *refusals) hold(v *view) time.Duration {
	if !r.holds(v.now) || r.circumstances != v.circumstances() {
		return 0
	}
	return r.until.Sub(v.now)
}

// circumstances are what a refusal may depend on, as far as it can be seen: the quota
// but for its status, and the policy.
func (v *view) circumstances() string {
	value, err := json.Marshal([]any{v.rq.Labels, v.rq.Annotations, v.rq.Spec, v.policy})
	if err != nil {
		return err.Error()
	}
	return string(value)
}
