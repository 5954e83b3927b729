// Package ledger is the record of the live migrations in flight: the interface
// [Ledger], its contract, and what its backends have in common. The backends are
// packages of their own: memory and configmap. Package ledgertest is the suite that
// each of them passes.
package ledger

import (
	"context"
	"errors"

	"github.com/vmquota/headroom/quota"
)

// A Ledger records the migrations in flight, by namespace. A record is only replaced as a
// whole, so that it cannot leak what was missed.
//
// Implementations are safe for concurrent use and share no memory with callers, in
// neither direction: not through slices and maps, and not through quantities that
// are an inf.Dec inside. Their test is a call of ledgertest.Run, which checks all
// that is said here.
//
// A namespace that nothing was recorded for is one without migrations. A reader sees
// all of a Replace or nothing of it, and namespaces have no influence on each other.
// Once a Replace has returned nil, reads through the same Ledger see it, or something
// later. The empty namespace name is refused with [ErrNoNamespace].
//
// If ctx is done before the call, its error is returned and nothing is written. After any
// other error a write may have been carried out. Calling Replace again is always safe.
//
// No migrations come with an error, with one exception: see [ErrPartial].
type Ledger interface {
	// Migrations returns those of namespace, sorted by UID, each UID once. None is
	// not an error. The caller owns the result.
	//
	// Every field comes back with the meaning that it had, including the difference
	// between a Held or Shares that is nil and one that is empty. Quantities keep
	// their value and the spelling that their String method gives them, Created
	// keeps its second.
	Migrations(ctx context.Context, namespace string) ([]quota.Migration, error)

	// Replace makes migrations the ones in flight in namespace, in any order. Nil
	// and empty mean that there are none. Of several with the same UID one counts,
	// the same one as in quota.Effective: that with the most advanced State, then
	// that with the greater claim.
	//
	// It writes nothing if the record is [Equal] to migrations already. Otherwise
	// the last Replace to return wins, whoever made it.
	Replace(ctx context.Context, namespace string, migrations []quota.Migration) error
}

// ErrPartial says that a part of the record cannot be read: it is corrupt, or was
// written by a version that is not understood. Beside it, Migrations returns the
// migrations that it could read. They are enough to raise a limit, but not to lower it: one
// that is missing may hold a part of what is used. The error says where the unreadable part
// is; it stays there until Replace replaces it.
var ErrPartial = errors.New("a part of the ledger cannot be read")

// ErrNoNamespace is returned for the empty namespace name.
var ErrNoNamespace = errors.New("the ledger was asked for the empty namespace name")
