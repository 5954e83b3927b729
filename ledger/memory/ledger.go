// Package memory is a ledger in the memory of one process: for tests, for a first
// try, and for a controller whose observer fills it again after a restart before
// anybody reads it.
package memory

import (
	"context"
	"sync"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// A Ledger is a ledger.Ledger that keeps its record in memory. [New] makes one. It fails only
// on a context that is done and on an empty namespace name.
type Ledger struct {
	mu sync.RWMutex
	// The slices are canonical. They are replaced, but not changed, so that a
	// reader may use one without the lock.
	byNamespace map[string][]quota.Migration
	writes      int
}

var _ ledger.Ledger = (*Ledger)(nil)

// New returns an empty ledger.
func New() *Ledger { return &Ledger{byNamespace: map[string][]quota.Migration{}} }

// Migrations implements ledger.Ledger. The result is nil if there are none.
func (l *Ledger) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	migrations, err := l.View(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return ledger.Canonical(migrations), nil
}

// View is Migrations without a copy: the result is read only.
func (l *Ledger) View(ctx context.Context, namespace string) ([]quota.Migration, error) {
	if err := check(ctx, namespace); err != nil {
		return nil, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byNamespace[namespace], nil
}

// Replace implements ledger.Ledger.
func (l *Ledger) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	if err := check(ctx, namespace); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ledger.Equal(l.byNamespace[namespace], migrations) {
		return nil
	}
	migrations = ledger.Canonical(migrations)
	l.writes++
	if len(migrations) == 0 {
		delete(l.byNamespace, namespace)
		return nil
	}
	l.byNamespace[namespace] = migrations
	return nil
}

// Writes returns how many calls of Replace have changed the record; see ledgertest.Counter.
func (l *Ledger) Writes() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.writes
}

func check(ctx context.Context, namespace string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if namespace == "" {
		return ledger.ErrNoNamespace
	}
	return nil
}
