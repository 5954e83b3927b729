package configmap

import (
	"context"
	"sync"
)

// turns lets one caller after the other write to a namespace, so that those of one
// process do not run into conflicts with each other. The zero value is ready.
type turns struct {
	mu          sync.Mutex
	byNamespace map[string]*turn
}

// A turn is taken by filling the channel, and handed on by emptying it.
type turn struct {
	taken chan struct{} // of capacity 1
	users int           // who has it or waits for it
}

// take waits for the turn of namespace, until ctx is done. The caller calls done.
func (t *turns) take(ctx context.Context, namespace string) (done func(), err error) {
	t.mu.Lock()
	if t.byNamespace == nil {
		t.byNamespace = map[string]*turn{}
	}
	mine := t.byNamespace[namespace]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, 1)}
		t.byNamespace[namespace] = mine
	}
	mine.users++
	t.mu.Unlock()

	select {
	case mine.taken <- struct{}{}:
		return func() {
			<-mine.taken
			t.leave(namespace, mine)
		}, nil
	case <-ctx.Done():
		t.leave(namespace, mine)
		return nil, ctx.Err()
	}
}

func (t *turns) leave(namespace string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine.users--
	if mine.users == 0 {
		delete(t.byNamespace, namespace)
	}
}
