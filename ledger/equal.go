package ledger

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/quota"
)

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
