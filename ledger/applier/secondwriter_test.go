package applier_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A world is a scene in which things happen at times: a simulation, so that it needs no
// time of its own and runs the same each time.
type world struct {
	*scene
	due []happening // sorted
}

type happening struct {
	at time.Time
	do func()
}

func (w *world) after(d time.Duration, do func()) {
	at := w.now.Add(d)
	i := len(w.due)
	for i > 0 && w.due[i-1].at.After(at) {
		i--
	}
	w.due = slices.Insert(w.due, i, happening{at, do})
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.due) > 0 && !w.due[0].at.After(end) {
		next := w.due[0]
		w.due = w.due[1:]
		w.now = next.at
		next.do()
	}
	w.now = end
}

// keep calls Apply when the quota has changed, some time later, and when a Result asks
// for it.
func (w *world) keep(lag time.Duration) {
	looking := false
	var look func()
	look = func() {
		looking = false
		if again := w.apply().RetryAfter; again > 0 {
			w.after(again, look)
		}
	}
	w.changed = func() {
		if !looking {
			looking = true
			w.after(lag, look)
		}
	}
}

// A rancher is a second writer that knows nothing of migrations. At every event of the
// namespace it compares spec.hard with the static limits, as it sees them some time
// later, and if they differ it writes the namespace (which is another event for it) and
// then the quota.
type rancher struct {
	*world
	latency time.Duration
	static  corev1.ResourceList
	resets  []time.Duration // when, since the beginning
}

func (r *rancher) event() {
	r.after(r.latency, func() {
		if quota.Equal(r.quota("q").Spec.Hard, r.static) {
			return
		}
		r.event() // of the condition that it writes to the namespace
		r.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Spec.Hard = r.static.DeepCopy() })
		r.resets = append(r.resets, r.now.Sub(epoch))
	})
}

func newRancher(t *testing.T, latency time.Duration, configure func(*scene)) *rancher {
	s := full(t)
	configure(s)
	s.apply()
	w := &world{scene: s}
	w.keep(5 * time.Millisecond)
	r := &rancher{world: w, latency: latency, static: list("limits.cpu=4")}
	r.event()
	return r
}

// A second writer with a latency, that reacts to itself, comes to rest, and then the
// raise stands.
func TestSecondWriterSettles(t *testing.T) {
	for _, test := range []struct {
		latency time.Duration
		resets  int // at most
	}{
		{5 * time.Millisecond, 2},
		{20 * time.Millisecond, 2},
		{600 * time.Millisecond, 2},
		{3 * time.Second, 4},
		{20 * time.Second, 7},
	} {
		t.Run(test.latency.String(), func(t *testing.T) {
			r := newRancher(t, test.latency, func(*scene) {})
			r.run(10 * time.Minute)
			require.NotEmpty(t, r.resets)
			require.LessOrEqual(t, len(r.resets), test.resets)
			require.Equal(t, `{"limits.cpu":"5"}`, r.hard("q"))

			// Later events are undone in a moment, and the end is the end.
			r.event()
			r.run(10 * time.Minute)
			require.Equal(t, `{"limits.cpu":"5"}`, r.hard("q"))
			r.inFlight()
			r.event()
			r.apply()
			r.run(10 * time.Minute)
			require.Equal(t, `{"limits.cpu":"4"}`, r.hard("q"))
			require.Empty(t, r.quota("q").Annotations)
		})
	}
}

// Without the pauses the two of them go on for ever.
func TestSecondWriterLivelocksWithoutPauses(t *testing.T) {
	r := newRancher(t, 600*time.Millisecond, func(s *scene) { applier.TakeOutPauses(s.applier) })
	r.run(time.Minute)
	require.Greater(t, len(r.resets), 90)
}

// A namespace that is busy, so that there are events all the time, costs a write per
// minute at most, and the raise stands for some of the time.
func TestSecondWriterThatNeverRests(t *testing.T) {
	r := newRancher(t, 600*time.Millisecond, func(*scene) {})
	var busy func()
	busy = func() {
		r.event()
		r.after(100*time.Millisecond, busy)
	}
	busy()
	r.run(10 * time.Minute)
	r.updates = 0
	r.run(20 * time.Minute)
	require.InDelta(t, 20, r.updates, 2)
}
