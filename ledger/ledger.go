// Package ledger is the record of the live migrations in flight: the interface
// [Ledger], its contract, and what its backends have in common. The backends are
// packages of their own: memory and configmap. Package ledgertest is the suite that
// each of them passes.
package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// Equal reports whether a and b are the same record, so that replacing one by the
// other would change nothing. The order of the migrations does not matter, nor how
// an amount is spelled (1000m is 1), nor a fraction of a second of Created. Of
// several migrations with the same UID one counts, as in [Canonical]. Nil and empty are the
// same for a and b, for a Surge and for a Growth, but not for a Held or for Shares, whose
// order matters.
func Equal(a, b []quota.Migration) bool {
	return slices.EqualFunc(sorted(a), sorted(b), equal)
}

func equal(a, b quota.Migration) bool {
	return a.UID == b.UID &&
		a.VMI == b.VMI &&
		a.State == b.State &&
		a.Priority == b.Priority &&
		a.Node == b.Node &&
		a.Over == b.Over &&
		a.RefusedBy == b.RefusedBy &&
		quota.Equal(a.Growth, b.Growth) &&
		seconds(a.Created).Equal(seconds(b.Created)) &&
		quota.Equal(a.Surge, b.Surge) &&
		equalHeld(a.Held, b.Held) &&
		(a.Shares == nil) == (b.Shares == nil) &&
		slices.EqualFunc(a.Shares, b.Shares, equalShares)
}

func equalShares(a, b quota.Share) bool {
	return a.Traits == b.Traits && quota.Equal(a.Surge, b.Surge) && equalHeld(a.Held, b.Held)
}

func equalHeld(a, b corev1.ResourceList) bool {
	return (a == nil) == (b == nil) && quota.Equal(a, b)
}

// seconds returns t as Kubernetes stores it: in UTC, and to the second.
func seconds(t metav1.Time) time.Time { return t.Truncate(time.Second).UTC() }

// Canonical returns migrations as a ledger returns them after they were given to
// Replace: sorted by UID, each UID once (see Ledger.Replace), Created in UTC and to
// the second. It is nil if there are none, and shares no memory with migrations.
func Canonical(migrations []quota.Migration) []quota.Migration {
	canonical := quota.Sorted(migrations)
	for i := range canonical {
		canonical[i].Created = metav1.NewTime(seconds(canonical[i].Created))
	}
	return canonical
}

// sorted returns migrations sorted by UID, each UID once. If they are so already, as
// those of a ledger are, it copies nothing.
func sorted(migrations []quota.Migration) []quota.Migration {
	for i := 1; i < len(migrations); i++ {
		if migrations[i-1].UID >= migrations[i].UID {
			return quota.Sorted(migrations)
		}
	}
	return migrations
}
