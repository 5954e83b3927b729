package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/internal/turns"
	"github.com/vmquota/headroom/quota"
)

// DisabledAnnotation is the kill switch of one ResourceQuota, if its value is "true":
// headroom does not write to it.
const DisabledAnnotation = "headroom.vmquota.io/disabled"

// maxTries is how often a quota is tried to be written, on fresh data each time, before
// a conflict is an error.
const maxTries = 5

// A Config is what an [Applier] works with.
type Config struct {
	// Ledger is where the migrations in flight are read. It is required.
	Ledger ledger.Ledger
	// Quotas reads and writes ResourceQuotas, such as a clientset's CoreV1(). It is
	// required.
	Quotas typedcorev1.ResourceQuotasGetter
	// List lists the quotas of a namespace from a cache, which are read only. Of a
	// client-go lister it is
	//
	//	func(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	//		return lister.ResourceQuotas(namespace).List(labels.Everything())
	//	}
	//
	// If nil, each Apply lists them from the API server. A cache that is behind does no harm.
	List func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error)
	// Now tells the time. It is required; time.Now is what most callers want.
	Now func() time.Time

	// Policy is that of a namespace, and is asked each time. Its Lift and Eager are not
	// used: both are found out here. If nil, the zero Policy is that of all namespaces.
	Policy func(namespace string) quota.Policy
	// Disabled is the kill switch for all quotas, and is asked each time. If nil, it is off.
	Disabled func() bool
	// DisabledFor is one more kill switch of a single quota, beside [DisabledAnnotation]. It
	// is asked each time, with a quota that is read only. If nil, there is none.
	DisabledFor func(rq *corev1.ResourceQuota) bool

	// Parallel are the limits of KubeVirt that offers start from; see [Parallel].
	Parallel Parallel
	// Guard writes [OfferAnnotation] while room is open. It costs two more writes for
	// each offer, and delays the room by 20 ms, or more on a busy API server.
	Guard bool
	// Enqueue asks for a call of Apply for another namespace, because a migration there has
	// its turn. It must not block or call the Applier. If nil, the migration waits for the
	// next call.
	Enqueue func(namespace string)

	// Recorder receives the events of the package comment. If nil, there are none.
	Recorder record.EventRecorder
	// Metrics receives what is worth counting. If nil, nobody does.
	Metrics Metrics
}

// Metrics receives what is worth counting, with the namespace and the name of the
// ResourceQuota. Its methods are called in the middle of an Apply, and must not call the
// Applier.
type Metrics interface {
	// Wrote is called after each write.
	Wrote(namespace, name string, action Action)
	// Refused is called after each write that the API server refused.
	Refused(namespace, name string)
	// Taken is called when regular workloads have taken room that was open for target
	// pods, with by how much that grew since the last call.
	Taken(namespace, name string, amount corev1.ResourceList)
}

// An Applier enforces the effective limits of the migrations in a ledger in status.hard of
// the ResourceQuotas of one cluster. [New] makes one. It is safe for concurrent use; calls
// for the same namespace wait for each other.
type Applier struct {
	config   Config
	offers   *offers
	memories turns.Turns[memories]
}

// New returns an Applier. It fails if Ledger, Quotas or Now is missing.
func New(config Config) (*Applier, error) {
	if config.Ledger == nil || config.Quotas == nil || config.Now == nil {
		return nil, errors.New("an applier needs Ledger, Quotas and Now")
	}
	return &Applier{config: config, offers: newOffers(config.Parallel)}, nil
}

// Apply makes status.hard of every ResourceQuota in namespace what it must be now. Call it
// after every change of the ledger and every event of a ResourceQuota there, status updates
// included; again after Result.RequeueAfter; and for all namespaces on every resync.
//
// A quota that cannot be written does not keep it from the others: the error joins those
// in Result.Quotas, each an [Error], and the Result is there beside it. If the ledger or
// the list of quotas cannot be read, nothing is done, and there is no Result. If a part of
// the ledger cannot be read (ledger.ErrPartial), limits are raised, but not lowered, and
// the error says so.
//
// Errors are to be retried as controllers do it, except for ErrForbidden: there
// RequeueAfter and the next change are enough; see [WorthRetry].
func (a *Applier) Apply(ctx context.Context, namespace string) (Result, error) {
	kept, done, err := a.memories.Take(ctx, namespace)
	if err != nil {
		return Result{}, failed(namespace, "", "wait for another call", err)
	}
	defer func() { done(len(*kept) > 0) }()
	if *kept == nil {
		*kept = memories{}
	}

	inFlight, unread := a.migrations(ctx, namespace)
	partial := errors.Is(unread, ledger.ErrPartial)
	if unread != nil {
		unread = failed(namespace, "", "read the ledger", unread)
	}
	if unread != nil && !partial {
		return Result{}, unread
	}
	quotas, err := a.list(ctx, namespace)
	if err != nil {
		return Result{}, failed(namespace, "", "list", err)
	}
	s := a.config.setting(namespace, quotas, inFlight)
	s.partial = partial
	views, again, others := a.offers.views(namespace, s, byName(quotas), *kept)
	if a.config.Enqueue != nil {
		for _, other := range others {
			a.config.Enqueue(other)
		}
	}
	kept.forget(quotas, views)
	result, errs := Result{RequeueAfter: again}, []error{unread}
	for _, v := range views {
		if q, exists := a.reconcile(ctx, v, *kept); exists {
			result.Quotas = append(result.Quotas, q)
			result.RequeueAfter = sooner(result.RequeueAfter, q.RequeueAfter)
			errs = append(errs, q.Err)
		}
	}
	return result, errors.Join(errs...)
}

// migrations returns those in the ledger, which are read only.
func (a *Applier) migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	// A ledger in memory spares the copy.
	type viewer interface {
		View(ctx context.Context, namespace string) ([]quota.Migration, error)
	}
	if v, ok := a.config.Ledger.(viewer); ok {
		return v.View(ctx, namespace)
	}
	return a.config.Ledger.Migrations(ctx, namespace)
}

// list returns the quotas of namespace, which are read only.
func (a *Applier) list(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	if a.config.List != nil {
		return a.config.List(ctx, namespace)
	}
	live, err := a.config.Quotas.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	quotas := make([]*corev1.ResourceQuota, len(live.Items))
	for i := range live.Items {
		quotas[i] = &live.Items[i]
	}
	return quotas, nil
}

// byName returns quotas sorted by name.
func byName(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
	return slices.SortedFunc(slices.Values(quotas), func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
}

// reconcile makes one quota what it must be. It reports whether the quota still exists.
func (a *Applier) reconcile(ctx context.Context, v *view, m memories) (QuotaResult, bool) {
	client := a.config.Quotas.ResourceQuotas(v.rq.Namespace)
	for try := 1; ; try++ {
		p := v.plan()
		if p.next == nil {
			v.memory.remember(p.history)
			if p.RequeueAfter == 0 && len(v.inTheWay) == 0 { // what was refused is not needed any more
				v.memory.refusals, v.refused = refusals{}, 0
			}
		}
		switch {
		case v.refused > 0:
			return a.notWritten(ctx, v, p, v.memory.refusals.err), true
		case p.next == nil:
			return a.outcome(ctx, v, p), true
		}
		err := ctx.Err()
		var written *corev1.ResourceQuota
		if err == nil {
			written, err = client.UpdateStatus(ctx, p.next, metav1.UpdateOptions{})
		}
		switch {
		case err == nil:
			v.memory.remember(p.history)
			v.memory.latest, v.memory.refusals = written, refusals{}
			a.tellWrote(ctx, p)
			v.rq = written
			return a.outcome(ctx, v, p), true
		case apierrors.IsNotFound(err):
			return QuotaResult{}, false
		case apierrors.IsConflict(err) && try < maxTries:
		case isRefusal(err):
			err = failed(v.rq.Namespace, v.rq.Name, "write status", fmt.Errorf("%w: %w", ErrForbidden, err))
			v.memory.refusals.add(v.rq, v.policy, err, v.now)
			v.refused = v.memory.refusals.until.Sub(v.now)
			a.tellRefused(ctx, v, err)
			return a.notWritten(ctx, v, p, err), true
		default:
			return a.notWritten(ctx, v, p, failed(v.rq.Namespace, v.rq.Name, "write status", err)), true
		}
		fresh, err := client.Get(ctx, v.rq.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return QuotaResult{}, false
		}
		if err != nil {
			return a.notWritten(ctx, v, p, failed(v.rq.Namespace, v.rq.Name, "read after a conflict", err)), true
		}
		deferred, standing := v.deferred, v.standing
		v = v.view(fresh, m.of(fresh))
		v.deferred, v.standing = deferred, standing
	}
}

// notWritten returns the outcome if p was to be written and was not.
func (a *Applier) notWritten(ctx context.Context, v *view, p plan, err error) QuotaResult {
	p.Action, p.Err, p.history = Unchanged, err, v.memory.history
	if v.refused > 0 {
		p.RequeueAfter, p.Why = v.refused, "the API server has refused the write"
	}
	return a.outcome(ctx, v, p)
}

func (a *Applier) outcome(ctx context.Context, v *view, p plan) QuotaResult {
	again := a.tell(ctx, v)
	r := p.result(v)
	r.RequeueAfter = sooner(r.RequeueAfter, again)
	if exceeds(r.Effective, r.Hard) {
		r.Offered = nil // there is no room yet, or no more
	}
	return r
}
