package rancher

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A Takeover adopts the quotas that a Harvester from before this library has left in the
// middle of whatever it was doing. It has no state, and is safe for concurrent use.
//
// Call Adopt before every Apply of the applier, and after the Observe of the observer. A
// quota costs it one write, once.
type Takeover struct {
	// Quotas writes ResourceQuotas.
	Quotas typedcorev1.ResourceQuotasGetter
	// List lists the quotas of a namespace from a cache, which are read only.
	List func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error)
	// Limits returns what the namespace's annotation asks for, as the function of that
	// name does; see HarvesterStatic. It is asked seldom, and reads the namespace from
	// the API server: a cache of namespaces may be behind that of quotas, and a new limit
	// would be taken for a raise. With ErrMalformed the limits are not known; all other
	// errors are to be tried again.
	Limits func(ctx context.Context, namespace string) (corev1.ResourceList, error)
	// Ledger is where the migrations in flight are.
	Ledger ledger.Ledger

	// Seed records Harvester's entries in the ledger where that says that nothing is in
	// flight. It is for a process that cannot know whether an observer has looked yet,
	// such as Rancher's, while the write lock keeps Harvester from adopting. Without it
	// an empty ledger means that limits are lowered at once. The observer must look at a
	// namespace again when the ledger changes (configmap.Ledger.OnChange).
	Seed bool
	// UID tells the UID of a VMI, and has Harvester's annotations written beside those
	// of this library; see Mirrored, which the applier needs then. Nil: they go.
	UID func(namespace, vmi string) types.UID
}

// Adopt adopts the quotas of namespace as AdoptHarvester says. It does nothing where
// nothing is to be adopted.
//
// Errors are those of the ledger and of the API server, a conflict for example, and are to
// be tried again before anything is applied; and what was malformed, for people. A quota
// with an error does not keep it from the others.
func (t *Takeover) Adopt(ctx context.Context, namespace string) error {
	quotas, err := t.List(ctx, namespace)
	if err != nil {
		return err
	}
	var failed []error
	for _, rq := range quotas {
		if rq == nil || rq.DeletionTimestamp != nil || !harvested(rq) {
			continue
		}
		if err := t.adopt(ctx, rq); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// harvested reports whether rq has annotations to adopt.
func harvested(rq *corev1.ResourceQuota) bool {
	for key := range rq.Annotations {
		if ofHarvester(key) {
			return true
		}
	}
	return false
}

func (t *Takeover) adopt(ctx context.Context, rq *corev1.ResourceQuota) error {
	inFlight, err := t.inFlight(ctx, rq)
	if err != nil {
		return err
	}
	limits, err := t.Limits(ctx, rq.Namespace)
	if errors.Is(err, ErrMalformed) {
		limits = nil
	} else if err != nil {
		return err
	}
	if t.UID != nil && mirrors(rq, limits) {
		return nil
	}
	next, malformed := AdoptHarvester(rq, limits, inFlight != nil)
	if next == nil {
		return malformed
	}
	if t.UID != nil {
		next = MirrorHarvester(next, inFlight, func(vmi string) types.UID { return t.UID(rq.Namespace, vmi) })
	}
	if _, err := t.Quotas.ResourceQuotas(rq.Namespace).Update(ctx, next, metav1.UpdateOptions{}); err != nil {
		return errors.Join(malformed, fmt.Errorf("adopt ResourceQuota %s/%s: %w", rq.Namespace, rq.Name, err))
	}
	return malformed
}

// inFlight returns what the ledger says, nil if that is nothing.
func (t *Takeover) inFlight(ctx context.Context, rq *corev1.ResourceQuota) ([]quota.Migration, error) {
	inFlight, err := t.Ledger.Migrations(ctx, rq.Namespace)
	switch {
	case errors.Is(err, ledger.ErrPartial):
		return append([]quota.Migration{}, inFlight...), nil // there may be others
	case err != nil:
		return nil, err
	case len(inFlight) > 0:
		return inFlight, nil
	case !t.Seed:
		return nil, nil
	}
	found, _ := ReadHarvester(rq) // the error is told when it is adopted
	if len(found.Entries) == 0 {
		return nil, nil
	}
	seed := found.InFlight()
	return seed, t.Ledger.Replace(ctx, rq.Namespace, seed)
}

// mirrors reports whether Harvester's annotations on rq are a mirror of this library's,
// which the applier keeps: there is nothing in them that changes the static limits.
func mirrors(rq *corev1.ResourceQuota, limits corev1.ResourceList) bool {
	if _, raised := rq.Annotations[applier.StaticAnnotation]; !raised {
		return false
	}
	next, err := AdoptHarvester(rq, limits, true)
	if next == nil || err != nil {
		return false
	}
	return next.Annotations[applier.StaticAnnotation] == rq.Annotations[applier.StaticAnnotation] &&
		next.Annotations[applier.AppliedAnnotation] == rq.Annotations[applier.AppliedAnnotation]
}
