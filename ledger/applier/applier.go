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

	// Policy is that of a namespace, and is asked each time. Nil: the zero Policy.
	Policy func(namespace string) quota.Policy
	// Budget caps the surge that is granted by raising limits in all namespaces
	// together, in ResourceQuota names and units. An absent key, or a nil list, is no
	// cap. See the package comment for what a restart means.
	Budget corev1.ResourceList
	// Disabled is the kill switch for all quotas, and is asked each time. Nil: it is
	// off.
	Disabled func() bool
	// DisabledFor is one more kill switch of a single quota, beside [DisabledAnnotation],
	// for controllers that have an annotation of their own; it is asked each time, with a
	// quota that is read only. Nil: there is none.
	DisabledFor func(rq *corev1.ResourceQuota) bool

	// Guard publishes on every raised quota how far regular workloads may bring its
	// usage; see [GuardAnnotation]. It is written together with spec.hard, and costs a
	// write of its own whenever temporary usage changes and spec.hard does not: one more
	// for each migration that is admitted. Off, it costs nothing.
	Guard bool

	// Recorder receives events on the ResourceQuotas; the package comment lists them.
	// Nil: there are none.
	Recorder record.EventRecorder
	// Metrics is told what is worth counting. Nil: nobody is told.
	Metrics Metrics
}

// Metrics is told what is worth counting, with the namespace and the name of the
// ResourceQuota. Its methods are called in the middle of an Apply, and must not call the
// Applier.
type Metrics interface {
	// Wrote is called after each write.
	Wrote(namespace, name string, action Action)
	// Refused is called after each write that the API server refused.
	Refused(namespace, name string)
	// Reset is called when somebody has reset a raise.
	Reset(namespace, name string)
	// Taken is called when regular usage came to be above static while the quota was
	// raised, with by how much it grew since the last call.
	Taken(namespace, name string, amount corev1.ResourceList)
}

// An Applier writes the effective limits of the migrations in a ledger to the
// ResourceQuotas. [New] makes one. It is safe for concurrent use; calls for the same
// namespace wait for each other.
type Applier struct {
	config   Config
	pool     pool
	memories memories
	pause    func(n int) time.Duration // after the n-th reset in a row
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
	config.Budget = config.Budget.DeepCopy()
	return &Applier{config: config, pool: pool{budget: config.Budget}, pause: resetPause}, nil
}

// Apply makes spec.hard of every ResourceQuota in namespace what it must be now. Call it
// after every change of the ledger and every event of a ResourceQuota there, status
// updates included; again after Result.RetryAfter; and for all namespaces at the start
// and now and then. It does nothing where nothing is to be done.
//
// A quota that cannot be written does not keep it from the others: the error joins those
// in Result.Quotas, each an [Error], and the Result is there beside it. If the ledger or
// the list of quotas cannot be read, nothing is done, and there is no Result. If a part of
// the ledger cannot be read (ledger.ErrPartial), limits are raised, but not lowered, and
// the error says so.
//
// Errors are to be retried as controllers do it, except for ErrForbidden and
// ErrUnreadable: for these RetryAfter and the next change are enough; see [WorthRetry].
func (a *Applier) Apply(ctx context.Context, namespace string) (Result, error) {
	memories, done := a.memories.take(namespace)
	defer done()

	s, unread := a.setting(ctx, namespace)
	if unread != nil && !s.partial {
		return Result{}, unread
	}
	quotas, err := a.list(ctx, namespace)
	if err != nil {
		return Result{}, err
	}
	var result Result
	var views []*view
	for _, rq := range quotas {
		v, err := s.look(rq, memories)
		switch {
		case err != nil:
			result.Quotas = append(result.Quotas, a.unreadable(ctx, rq, memories.of(rq), err))
		case v != nil:
			views = append(views, v)
		}
	}
	a.admit(namespace, s, views)
	for _, v := range views {
		if outcome, exists := a.reconcile(ctx, v, memories); exists {
			result.Quotas = append(result.Quotas, outcome)
		}
	}
	memories.forget(quotas, views, s.now)
	return result.complete(unread)
}

// setting returns what all quotas of namespace have in common.
func (a *Applier) setting(ctx context.Context, namespace string) (setting, error) {
	s := setting{now: a.config.Now(), guarded: a.config.Guard}
	var err error
	if s.inFlight, err = a.config.Ledger.Migrations(ctx, namespace); err != nil {
		s.partial = errors.Is(err, ledger.ErrPartial)
		err = failed(namespace, "", "read the ledger", err)
	}
	if a.config.Policy != nil {
		s.policy = a.config.Policy(namespace)
	}
	all := a.config.Disabled != nil && a.config.Disabled()
	s.disabled = func(rq *corev1.ResourceQuota) bool {
		return all || rq.Annotations[DisabledAnnotation] == "true" || a.config.DisabledFor != nil && a.config.DisabledFor(rq)
	}
	return s, err
}

// list returns the quotas of namespace, sorted by name.
func (a *Applier) list(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	var quotas []*corev1.ResourceQuota
	var err error
	if a.config.List != nil {
		quotas, err = a.config.List(ctx, namespace)
		quotas = slices.Clone(quotas)
	} else {
		var live *corev1.ResourceQuotaList
		if live, err = a.config.Quotas.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{}); err == nil {
			for i := range live.Items {
				quotas = append(quotas, &live.Items[i])
			}
		}
	}
	if err != nil {
		return nil, failed(namespace, "", "list", err)
	}
	slices.SortFunc(quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
	return quotas, nil
}

// look returns a view of rq, nil if there is nothing to do about it.
func (s setting) look(rq *corev1.ResourceQuota, memories *memoriesOf) (*view, error) {
	known := memories.quotas[rq.UID]
	rq = known.newest(rq)
	if known == nil && len(s.inFlight) == 0 && !isRaised(rq) {
		return nil, nil
	}
	v, err := s.view(rq, known)
	if err != nil {
		return nil, err
	}
	if known != nil {
		known.unreadable = ""
	}
	if !v.concerned() {
		return nil, nil
	}
	v.memory = memories.of(rq)
	return v, nil
}

// reconcile makes one quota what it must be. It reports whether the quota still exists.
func (a *Applier) reconcile(ctx context.Context, v *view, memories *memoriesOf) (QuotaResult, bool) {
	client := a.config.Quotas.ResourceQuotas(v.rq.Namespace)
	for try := 1; ; try++ {
		p := v.plan(a.pause)
		a.tell(ctx, v, p)
		if p.next == nil {
			v.memory.refusals = refusals{}
			return v.result(p, nil), true
		}
		if wait := v.memory.refusals.hold(v); wait > 0 {
			p.again = wait
			return v.result(p, v.memory.refusals.err), true
		}
		written, err := update(ctx, client, p.next)
		switch {
		case err == nil:
			return a.wrote(ctx, v, p, written), true
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
			return v.result(p, failed(v.rq.Namespace, v.rq.Name, "read after a conflict", err)), true
		}
		latest, err := v.latest(fresh, memories.of(fresh))
		if err != nil {
			return a.unreadable(ctx, fresh, memories.of(fresh), err), true
		}
		v = latest
	}
}

func update(ctx context.Context, client typedcorev1.ResourceQuotaInterface, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return client.Update(ctx, rq, metav1.UpdateOptions{})
}

func get(ctx context.Context, client typedcorev1.ResourceQuotaInterface, name string) (*corev1.ResourceQuota, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return client.Get(ctx, name, metav1.GetOptions{})
}

// wrote takes notice of a write.
func (a *Applier) wrote(ctx context.Context, v *view, p plan, written *corev1.ResourceQuota) QuotaResult {
	v.memory.latest, v.memory.refusals = written, refusals{}
	if p.action == Restored {
		v.memory.settling, v.memory.resets.undone = nil, false
	} else {
		v.memory.resets.wrote(v.now)
	}
	a.tellWrote(ctx, v, p)
	v.rq = written
	p.next = nil
	return v.result(p, nil)
}

// failed takes notice of a write that failed.
func (a *Applier) failed(ctx context.Context, v *view, p plan, err error) QuotaResult {
	isRefused := refused(err)
	if isRefused {
		err = fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	err = failed(v.rq.Namespace, v.rq.Name, "write", err)
	if isRefused {
		first := v.memory.refusals.add(v, err)
		a.tellRefused(ctx, v, err, first)
		p.again = v.memory.refusals.until.Sub(v.now)
	}
	return v.result(p, err)
}

// result returns the outcome of p. If p has something to write, it was not written.
func (v *view) result(p plan, err error) QuotaResult {
	r := QuotaResult{
		Name:       v.rq.Name,
		Static:     v.static,
		Hard:       v.rq.Spec.Hard.DeepCopy(),
		Decision:   p.decision,
		Action:     p.action,
		Reached:    Written,
		Taken:      v.memory.settling.taken(),
		Resets:     v.memory.resets.inARow(v.now),
		RetryAfter: p.again,
		Err:        err,
	}
	switch {
	case p.next != nil:
		r.Action, r.Reached = Unchanged, Pending
	case p.paused:
		r.Reached = Pending
	case quota.Equal(v.rq.Spec.Hard, v.rq.Status.Hard):
		r.Reached = Enforced
	}
	return r
}

// complete adds up the results. What is unread comes first.
func (r Result) complete(unread error) (Result, error) {
	slices.SortFunc(r.Quotas, func(a, b QuotaResult) int { return strings.Compare(a.Name, b.Name) })
	errs := []error{unread}
	for _, q := range r.Quotas {
		r.RetryAfter = sooner(r.RetryAfter, q.RetryAfter)
		errs = append(errs, q.Err)
	}
	return r, errors.Join(errs...)
}
