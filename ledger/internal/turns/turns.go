// Package turns is a lock by key that honours a context.
package turns

import (
	"context"
	"sync"
)

// Turns let one caller after the other have a key, and the value that is kept for it. The
// zero value is ready.
type Turns[T any] struct {
	mu    sync.Mutex
	byKey map[string]*turn[T]
}

// A turn is taken by filling the channel, and handed on by emptying it.
type turn[T any] struct {
	taken chan struct{} // of capacity 1
	users int           // who has it or waits for it
	keep  bool          // value, although nobody has it
	value T
}

// Take waits for the turn of key, until ctx is done. The caller calls done, with
// whether the value is kept although nobody waits for it.
func (t *Turns[T]) Take(ctx context.Context, key string) (value *T, done func(keep bool), err error) {
	t.mu.Lock()
	if t.byKey == nil {
		t.byKey = map[string]*turn[T]{}
	}
	mine := t.byKey[key]
	if mine == nil {
		mine = &turn[T]{taken: make(chan struct{}, 1)}
		t.byKey[key] = mine
	}
	mine.users++
	t.mu.Unlock()

	select {
	case mine.taken <- struct{}{}:
		return &mine.value, func(keep bool) {
			mine.keep = keep
			<-mine.taken
			t.leave(key, mine)
		}, nil
	case <-ctx.Done():
		t.leave(key, mine)
		return nil, nil, ctx.Err()
	}
}

func (t *Turns[T]) leave(key string, mine *turn[T]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine.users--
	if mine.users == 0 && !mine.keep {
		delete(t.byKey, key)
	}
}
