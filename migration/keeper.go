package migration

import (
	"context"
	"errors"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
)

// A Keeper keeps the quotas of a namespace right: it makes the ledger say what the caches
// say, the quotas what the ledger asks for, and wakes KubeVirt where it sleeps although
// there is room. Whichever of the three is nil is done by somebody else; where Rancher
// writes the quotas, that is the Applier. It is safe for concurrent use.
type Keeper struct {
	Observer *Observer
	Applier  *applier.Applier
	Nudger   *Nudger
}

// Keep looks at namespace, and does what there is to do. It does not matter what has
// happened there. Call it from a work queue that is keyed by namespace, such as a
// loop.Loop, after every event that [Namespace] finds of interest, every event of a
// ResourceQuota and every change of the ledger; and for all namespaces at the start and
// now and then. Again is after what time to call it again, if nothing happens before; zero
// if not at all.
//
// What fails does not keep the others from their work: where the ledger cannot be written,
// the quotas are still what it says. All errors are joined, but for applier.ErrForbidden
// and applier.ErrUnreadable: those two are for an administrator, who is told by events and
// Applier's Metrics, and trying again sooner than again says does not help. With any other
// error, try again as controllers do.
func (k Keeper) Keep(ctx context.Context, namespace string) (again time.Duration, err error) {
	var errs []error
	if k.Observer != nil {
		errs = append(errs, k.Observer.Observe(ctx, namespace))
	}
	if k.Applier != nil {
		result, err := k.Applier.Apply(ctx, namespace)
		errs, again = append(errs, applier.WorthRetry(err)), result.RetryAfter
	}
	if k.Nudger != nil {
		after, err := k.Nudger.Nudge(ctx, namespace)
		errs = append(errs, err)
		if again == 0 || after > 0 && after < again {
			again = after
		}
	}
	return again, errors.Join(errs...)
}

// InProgress reports whether object is a VMIM that is not final. Of all that informers
// find in the beginning, it is those whose namespaces cannot wait; see Urgent of
// loop.Config.
func InProgress(object any) bool {
	vmim, ok := object.(*kubevirtv1.VirtualMachineInstanceMigration)
	return ok && !vmim.IsFinal()
}
