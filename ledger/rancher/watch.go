package rancher

import (
	"sync"

	"k8s.io/apimachinery/pkg/watch"
)

// Watch returns a watch of ResourceQuotas that shows the objects of w as [Shim.Shown]
// says. It shows every event, also those in which nothing but the raise has changed.
// Stopping it stops w. Of nil it is nil.
func (s *Shim) Watch(w watch.Interface) watch.Interface {
	if w == nil {
		return nil
	}
	shown := &shownWatch{inner: w, events: make(chan watch.Event), stopped: make(chan struct{})}
	go shown.pass(s)
	return shown
}

type shownWatch struct {
	inner   watch.Interface
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

func (w *shownWatch) ResultChan() <-chan watch.Event { return w.events }

func (w *shownWatch) Stop() {
	w.once.Do(func() {
		close(w.stopped)
		w.inner.Stop()
	})
}

func (w *shownWatch) pass(s *Shim) {
	defer close(w.events)
	for event := range w.inner.ResultChan() {
		event.Object = s.ShownObject(event.Object)
		select {
		case w.events <- event:
		case <-w.stopped:
			return
		}
	}
}
