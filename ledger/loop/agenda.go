package loop

import (
	"container/heap"
	"maps"
	"time"
)

const (
	firstPause = 100 * time.Millisecond // after an error
	maxPause   = time.Minute
)

// An agenda knows which namespaces are to be looked at, and when. It has no clock:
// whoever calls it says what time it is.
type agenda struct {
	gap   time.Duration
	items map[string]*item
	due   dates
}

// An item is one namespace: it is on the agenda, or being looked at, or was so less than
// a gap ago.
type item struct {
	namespace string
	at        time.Time // when to look; zero: not at all
	position  int       // in the dates, from 1; zero: it is not there
	busy      bool
	began     time.Time // the last look
	errors    int       // in a row
}

func newAgenda(gap time.Duration) *agenda {
	return &agenda{gap: gap, items: map[string]*item{}}
}

// want asks for a look at namespace at some time, or earlier if it is wanted earlier
// already. It comes no sooner than a gap after the last one began.
func (a *agenda) want(namespace string, at time.Time) {
	i := a.items[namespace]
	if i == nil {
		i = &item{namespace: namespace}
		a.items[namespace] = i
	}
	if earliest := i.began.Add(a.gap); !i.began.IsZero() && at.Before(earliest) {
		at = earliest
	}
	if i.at.IsZero() || at.Before(i.at) {
		i.at = at
		a.enter(i)
	}
}

// enter puts i where it belongs among the dates, unless it is being looked at: then done
// does so.
func (a *agenda) enter(i *item) {
	switch {
	case i.busy:
	case i.position == 0:
		heap.Push(&a.due, i)
	default:
		heap.Fix(&a.due, i.position-1)
	}
}

// next returns a namespace to look at now, of which the caller says when it is done. If
// there is none, it returns for how long to wait, zero if nothing is on the agenda.
func (a *agenda) next(now time.Time) (namespace string, wait time.Duration) {
	if len(a.due) == 0 {
		return "", 0
	}
	if wait := a.due[0].at.Sub(now); wait > 0 {
		return "", wait
	}
	i := heap.Pop(&a.due).(*item) //nolint:forcetypeassert // there is nothing else in it
	i.at, i.busy, i.began = time.Time{}, true, now
	return i.namespace, 0
}

// done says that namespace was looked at, and when to do so again: after some time, zero
// if only when it is wanted. After an error it is wanted soon.
func (a *agenda) done(namespace string, now time.Time, again time.Duration, err error) {
	i := a.items[namespace]
	i.busy = false
	if err == nil {
		i.errors = 0
	} else {
		pause := pauseAfter(i.errors)
		i.errors++
		if again <= 0 || pause < again {
			again = pause
		}
	}
	if again > 0 {
		a.want(namespace, now.Add(again))
	}
	if !i.at.IsZero() && i.position == 0 {
		a.enter(i)
	}
}

// sweep forgets the namespaces of which there is nothing to know any more.
func (a *agenda) sweep(now time.Time) {
	maps.DeleteFunc(a.items, func(_ string, i *item) bool {
		return i.at.IsZero() && !i.busy && now.Sub(i.began) >= a.gap
	})
}

// pauseAfter is how long to wait after an error that was the first after n others.
func pauseAfter(n int) time.Duration {
	pause := firstPause
	for ; n > 0 && pause < maxPause; n-- {
		pause *= 2
	}
	return min(pause, maxPause)
}

// dates are items with a time, a heap with the earliest on top.
type dates []*item

func (d dates) Len() int { return len(d) }

func (d dates) Less(a, b int) bool { return d[a].at.Before(d[b].at) }

func (d dates) Swap(a, b int) {
	d[a], d[b] = d[b], d[a]
	d[a].position, d[b].position = a+1, b+1
}

func (d *dates) Push(x any) {
	i := x.(*item) //nolint:forcetypeassert // as heap.Interface is used here
	*d = append(*d, i)
	i.position = len(*d)
}

func (d *dates) Pop() any {
	last := len(*d) - 1
	i := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	i.position = 0
	return i
}
