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
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/internal/turns"
	"github.com/vmquota/headroom/quota"
)

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
	// Nil: each Apply lists them from the API server. A cache that is behind does no
	// harm, because nothing is written over what it has not seen.
	List func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error)
	// Now tells the time. It is required; time.Now is what most callers want.
	Now func() time.Time

	// Policy is that of a namespace, and is asked each time. Its Lift and Eager are not
	// used: both are found out here. If nil, the zero Policy is that of all namespaces.
	Policy func(namespace string) quota.Policy
	// Disabled is the kill switch for all quotas, and is asked each time. If nil, it is off.
	Disabled func() bool
	// DisabledFor is one more kill switch of a single quota, beside [DisabledAnnotation],
	// for controllers that have an annotation of their own or go by a label of the
	// namespace; it is asked each time, with a quota that is read only. If nil, there is
	// none.
	DisabledFor func(rq *corev1.ResourceQuota) bool

	// Parallel are the limits of KubeVirt that offers start from; see [Parallel].
	Parallel Parallel
	// Guard writes [OfferAnnotation] while room is open. It costs two more writes for
	// each offer, and delays the room by 20 ms.
	Guard bool
	// Enqueue asks for a call of Apply for another namespace, because a migration
	// there has its turn, such as the Add method of a work queue. It must not block, and
	// must not call the Applier. If nil, such a migration waits for the next call.
	Enqueue func(namespace string)

	// Recorder receives events on the ResourceQuotas; the package comment lists them.
	// Nil: there are none.
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
	offers   offers
	memories turns.Turns[memoriesOf]
}

// New returns an Applier. It fails if Ledger, Quotas or Now is missing.
func New(config Config) (*Applier, error) {
	var missing []string
	if config.Ledger == nil {
		missing = append(missing, "Ledger")
	}
	if config.Quotas == nil {
		missing = append(missing, "Quotas")
	}
	if config.Now == nil {
		missing = append(missing, "Now")
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("an applier needs %s", strings.Join(missing, ", "))
	}
	return &Applier{config: config, offers: offers{parallel: config.Parallel.orDefault()}}, nil
}

// Apply makes status.hard of every ResourceQuota in namespace what it must be now. Call it
// after every change of the ledger and every event of a ResourceQuota there, status updates
// included; again after Result.RequeueAfter; and for all namespaces at the start and on
// every resync. It does nothing where nothing is to be done.
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
	memories, done, err := a.memories.Take(ctx, namespace)
	if err != nil {
		return Result{}, failed(namespace, "", "wait for another call", err)
	}
	defer func() { done(len(memories.quotas) > 0) }()

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
		return Result{}, err
	}
	s := a.config.setting(namespace, inFlight)
	s.partial = partial
	views := s.views(quotas, memories)
	wants, alone := admit(views)
	turns, queue, again, others := a.offers.update(namespace, inFlight, wants, alone, s.now)
	if a.config.Enqueue != nil {
		for _, other := range others {
			a.config.Enqueue(other)
		}
	}
	enqueue(views, queue)
	memories.forget(quotas, views)
	result := Result{RequeueAfter: again}
	for _, v := range views {
		if outcome, exists := a.reconcile(ctx, v, turns, memories); exists {
			result.Quotas = append(result.Quotas, outcome)
		}
	}
	return result.complete(unread)
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

// setting returns what all quotas of namespace have in common.
func (c *Config) setting(namespace string, inFlight []quota.Migration) setting {
	s := setting{now: c.Now(), inFlight: inFlight, guard: c.Guard, later: later(inFlight)}
	if c.Policy != nil {
		s.policy = c.Policy(namespace)
		s.policy.Lift, s.policy.Eager = nil, false
	}
	all := c.Disabled != nil && c.Disabled()
	s.disabled = func(rq *corev1.ResourceQuota) bool {
		return all || rq.Annotations[DisabledAnnotation] == "true" || c.DisabledFor != nil && c.DisabledFor(rq)
	}
	return s
}

// list returns the quotas of namespace, sorted by name.
func (a *Applier) list(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	if a.config.List != nil {
		quotas, err := a.config.List(ctx, namespace)
		if err != nil {
			return nil, failed(namespace, "", "list", err)
		}
		return byName(quotas), nil
	}
	live, err := a.config.Quotas.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed(namespace, "", "list", err)
	}
	var quotas []*corev1.ResourceQuota
	for i := range live.Items {
		quotas = append(quotas, &live.Items[i])
	}
	return byName(quotas), nil
}

// byName returns quotas sorted by name.
func byName(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
	return slices.SortedFunc(slices.Values(quotas), func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
}

// views returns those of the quotas that there is anything to do about.
func (s setting) views(quotas []*corev1.ResourceQuota, memories *memoriesOf) []*view {
	var views []*view
	s.elsewhere = elsewhere(s.inFlight, quotas)
	for _, rq := range quotas {
		known := memories.quotas[rq.UID]
		rq = known.newest(rq)
		if _, annotated := rq.Annotations[OfferAnnotation]; known == nil && len(s.inFlight) == 0 && !annotated && quota.Equal(rq.Status.Hard, rq.Spec.Hard) {
			continue
		}
		v := s.view(rq, memories.of(rq))
		if v.concerned() {
			views = append(views, v)
		}
	}
	return views
}

// reconcile makes one quota what it must be, if it is the turn of these migrations. It
// reports whether the quota still exists.
func (a *Applier) reconcile(ctx context.Context, v *view, turns map[types.UID]bool, memories *memoriesOf) (QuotaResult, bool) {
	client := a.config.Quotas.ResourceQuotas(v.rq.Namespace)
	for try := 1; ; try++ {
		p := v.plan(turns)
		if p.next == nil {
			v.memory.remember(p.history)
			if p.again == 0 && len(v.inTheWay) == 0 { // what was refused is not needed any more
				v.memory.refusals, v.refused = refusals{}, 0
			}
		}
		switch {
		case v.refused > 0:
			p.again, p.why = v.refused, "the API server has refused the write"
			return a.notWritten(ctx, v, p, v.memory.refusals.err), true
		case p.next == nil:
			return a.outcome(ctx, v, p), true
		}
		written, err := update(ctx, client, p.next)
		switch {
		case err == nil:
			v.memory.remember(p.history)
			v.memory.latest, v.memory.refusals = written, refusals{}
			a.tellWrote(ctx, v, p)
			v.rq = written
			return a.outcome(ctx, v, p), true
		case apierrors.IsNotFound(err):
			return QuotaResult{}, false
		case !apierrors.IsConflict(err) || try == maxTries:
			return a.failed(ctx, v, p, err), true
		}
		fresh, err := get(ctx, client, v.rq.Name)
		switch {
		case apierrors.IsNotFound(err):
			return QuotaResult{}, false
		case err != nil:
			return a.notWritten(ctx, v, p, failed(v.rq.Namespace, v.rq.Name, "read after a conflict", err)), true
		}
		deferred, queue := v.deferred, v.queue
		v = v.view(fresh, memories.of(fresh))
		v.deferred, v.queue = deferred, queue
	}
}

func update(ctx context.Context, client typedcorev1.ResourceQuotaInterface, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return client.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
}

func get(ctx context.Context, client typedcorev1.ResourceQuotaInterface, name string) (*corev1.ResourceQuota, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return client.Get(ctx, name, metav1.GetOptions{})
}

// failed returns the outcome of a write that failed.
func (a *Applier) failed(ctx context.Context, v *view, p plan, err error) QuotaResult {
	isRefused := refused(err)
	if isRefused {
		err = fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	err = failed(v.rq.Namespace, v.rq.Name, "write status", err)
	if isRefused {
		first := v.memory.refusals.add(v.rq, v.policy, err, v.now)
		a.tellRefused(ctx, v, err, first)
		p.again, p.why = v.memory.refusals.until.Sub(v.now), "the API server has refused the write"
	}
	return a.notWritten(ctx, v, p, err)
}

// notWritten returns the outcome if p was to be written and was not.
func (a *Applier) notWritten(ctx context.Context, v *view, p plan, err error) QuotaResult {
	p.action, p.history = Unchanged, v.memory.history
	r := a.outcome(ctx, v, p)
	r.Err = err
	return r
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

// complete adds up the results. What is unread comes first.
func (r Result) complete(unread error) (Result, error) {
	slices.SortFunc(r.Quotas, func(a, b QuotaResult) int { return strings.Compare(a.Name, b.Name) })
	errs := []error{unread}
	for _, q := range r.Quotas {
		r.RequeueAfter = sooner(r.RequeueAfter, q.RequeueAfter)
		errs = append(errs, q.Err)
	}
	return r, errors.Join(errs...)
}
