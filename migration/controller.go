package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

// Component is the name of a [Controller] in events.
const Component = "headroom"

// Options are what a [Controller] may be told. The zero Options are what most callers
// want.
type Options struct {
	// Policy is that of a namespace. If nil, the zero quota.Policy is that of all.
	Policy func(namespace string) quota.Policy
	// Disabled is the kill switch for all quotas. If nil, it is off. Besides there are
	// applier.DisabledAnnotation on a quota, and a label of that name with the value "true"
	// on a namespace, if the caches have namespaces.
	Disabled func() bool
	// DisabledFor is one more kill switch of one quota. It is called with a quota that is
	// read only. If nil, there is none.
	DisabledFor func(rq *corev1.ResourceQuota) bool
	// Guard announces open room to the admission policy of examples/controller/guard.
	Guard bool
	// Parallel are KubeVirt's limits, if they are not its defaults.
	Parallel applier.Parallel
	// Owns reports whether a namespace is this process's, for shards. If nil, all are.
	Owns func(namespace string) bool

	// Ledger is the record of the migrations. If nil, it is in memory, which is enough
	// unless another process enforces.
	Ledger ledger.Ledger
	// RecordOnly leaves the quotas to another process that reads Ledger.
	RecordOnly bool

	// Caches and Quotas are those of the embedder's informers; both or none. With them
	// the Controller has no informers of its own, and the embedder calls Enqueue, or uses
	// Handler, for the events of [NamespaceOf]. If nil, it has its own.
	Caches *Caches
	Quotas List[corev1.ResourceQuota]
	// Patch sends a JSON merge patch (types.MergePatchType) to a VMIM. If nil,
	// Clients.KubeVirt does.
	Patch func(ctx context.Context, namespace, name string, patch []byte) error

	// Enqueue asks for a call of Reconcile if a work queue of the embedder's calls it,
	// and not Work. If nil, Work does.
	Enqueue func(namespace string)

	// Recorder receives events. If nil, the Controller records them with Clients.Core; a
	// record.FakeRecorder or another recorder without a sink switches that off.
	Recorder record.EventRecorder
	// Metrics receives what the applier counts. It may be nil.
	Metrics applier.Metrics
	// Reconciled is called after each reconcile, for metrics. It may be nil.
	Reconciled func(ctx context.Context, r Report)
	// Nudged is called after each nudge, for a counter. It may be nil.
	Nudged func(ctx context.Context, vmim *kubevirtv1.VirtualMachineInstanceMigration)

	// Workers, Resync and Gap are those of loop.Config. Zero means its defaults.
	Workers int
	Resync  time.Duration
	Gap     time.Duration
	// DrainTime is how long a reconcile that has begun may go on after Work was stopped.
	// Zero means 5 seconds.
	DrainTime time.Duration
	// Now is the clock. If nil, it is time.Now.
	Now func() time.Time
}

// A Report is what one reconcile of a namespace found and did. Its lists are read only.
type Report struct {
	Namespace string
	InFlight  []quota.Migration
	Waiting   []Wait
	Quotas    []*corev1.ResourceQuota
	Result    applier.Result
	Err       error
}

// A Controller enforces the effective limits of one cluster while its virtual machines
// migrate: it reads the migrations in flight from KubeVirt's objects, records them in a
// ledger, writes status.hard of the ResourceQuotas, and wakes KubeVirt where it sleeps
// although there is room. [NewController] makes one. It is safe for concurrent use.
//
// Leader election is the embedder's: call Start on all replicas and Work on the leader.
type Controller struct {
	options   Options
	clients   Clients
	caches    Caches
	quotas    List[corev1.ResourceQuota]
	ledger    ledger.Ledger
	applier   *applier.Applier
	nudger    *nudger
	answers   answers
	loop      *loop.Loop
	informers *informers // nil: the embedder's
	recording record.EventBroadcaster
	raised    episodes
	waits     waits
	working   context.Context // of the reconciles that Work calls: it outlives that of Work a little
}

// NewController returns a Controller that is not running. It fails if a client is missing
// (Clients.KubeVirt may be if Options has both Caches and Patch), or one of Options.Caches
// and Options.Quotas without the other.
func NewController(clients Clients, options Options) (*Controller, error) {
	if clients.Core == nil || clients.KubeVirt == nil && (options.Caches == nil || options.Patch == nil) {
		return nil, errors.New("a controller needs both clients")
	}
	if (options.Caches == nil) != (options.Quotas == nil) {
		return nil, errors.New("a controller needs both Caches and Quotas, or none of them")
	}
	if options.Now == nil {
		options.Now = time.Now //nolint:forbidigo // the default of a running controller
	}
	if options.DrainTime == 0 {
		options.DrainTime = 5 * time.Second
	}
	if options.Ledger == nil {
		options.Ledger = memory.New()
	}
	c := &Controller{options: options, clients: clients, ledger: options.Ledger}
	if err := c.record(); err != nil {
		return nil, err
	}
	var err error
	c.loop, err = loop.New(loop.Config{
		Reconcile: c.reconcileUnhurried, Namespaces: c.namespaces, Urgent: InProgress,
		Workers: options.Workers, Resync: options.Resync, Gap: options.Gap,
	})
	if err != nil {
		return nil, err
	}
	if options.Caches != nil {
		c.caches, c.quotas = *options.Caches, options.Quotas
	} else if err := c.watch(); err != nil {
		return nil, err
	}
	c.nudger = &nudger{patch: c.options.Patch, recorder: c.options.Recorder, nudged: options.Nudged}
	if c.nudger.patch == nil {
		c.nudger.patch = c.patch
	}
	if options.RecordOnly {
		return c, nil
	}
	c.applier, err = applier.New(applier.Config{
		Ledger: c.ledger, Quotas: clients.Core.CoreV1(), List: c.quotas, Now: options.Now,
		Policy: options.Policy, Disabled: options.Disabled, DisabledFor: c.disabledFor,
		Guard: options.Guard, Parallel: options.Parallel, Enqueue: c.Enqueue,
		Recorder: c.options.Recorder, Metrics: options.Metrics,
	})
	return c, err
}

// record makes a recorder of events, if the embedder has none.
func (c *Controller) record() error {
	if c.options.Recorder != nil {
		return nil
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), kubevirtv1.AddToScheme(scheme)); err != nil {
		return err
	}
	c.recording = record.NewBroadcaster()
	c.options.Recorder = c.recording.NewRecorder(scheme, corev1.EventSource{Component: Component})
	return nil
}

// disabledFor reports whether the namespace of rq, or the embedder, switches it off.
func (c *Controller) disabledFor(rq *corev1.ResourceQuota) bool {
	if c.caches.Namespace != nil {
		namespace, err := c.caches.Namespace(context.Background(), rq.Namespace)
		if err == nil && namespace != nil && namespace.Labels[applier.DisabledAnnotation] == "true" {
			return true
		}
	}
	return c.options.DisabledFor != nil && c.options.DisabledFor(rq)
}

// patch sends a JSON merge patch to a VMIM.
func (c *Controller) patch(ctx context.Context, namespace, name string, patch []byte) error {
	_, err := c.clients.KubeVirt.Resource(migrationsResource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// Run runs a [Controller] on the cluster of config until ctx is done. It returns an error if
// it cannot start.
func Run(ctx context.Context, config *rest.Config, options Options) error {
	clients, err := ClientsFor(config)
	if err != nil {
		return err
	}
	c, err := NewController(clients, options)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// Run starts the Controller and works until ctx is done. It returns an error only if it
// cannot start; see Start.
func (c *Controller) Run(ctx context.Context) error {
	err := c.Start(ctx)
	c.Work(ctx) // after an error ctx is done, and this ends what NewController has made
	return err
}

// Work reconciles until ctx is done, and returns when the last reconcile has. Call it once,
// after Start, on the leader.
func (c *Controller) Work(ctx context.Context) {
	if c.recording != nil {
		stop := c.recordEvents()
		defer stop()
	}
	var cancel context.CancelFunc
	c.working, cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.options.DrainTime, cancel) })()
	c.loop.Run(ctx)
}

func (c *Controller) reconcileUnhurried(_ context.Context, namespace string) (time.Duration, error) {
	return c.Reconcile(c.working, namespace)
}

// Enqueue asks for a reconcile of namespace. The empty namespace is ignored.
func (c *Controller) Enqueue(namespace string) {
	switch {
	case c.options.Owns != nil && !c.options.Owns(namespace):
	case c.options.Enqueue != nil:
		c.options.Enqueue(namespace)
	default:
		c.loop.Add(namespace)
	}
}

// Handler returns an event handler for an embedder's informers of the kinds in [Caches] and
// of ResourceQuotas. What it is handed out in the initial list is spread.
func (c *Controller) Handler() cache.ResourceEventHandler { return c.loop.Handler(c.owned) }

// owned returns the namespace to reconcile after an event of object, "" if there is none.
func (c *Controller) owned(object any) string {
	namespace := NamespaceOf(object)
	if namespace != "" && c.options.Owns != nil && !c.options.Owns(namespace) {
		return ""
	}
	return namespace
}

// Reconcile makes the quotas of namespace what they must be now. It is what the work queue
// calls; call it from a queue of your own instead of Work, never for the same namespace twice
// at the same time. RequeueAfter is when to call it again if nothing happens before; zero
// means not at all.
//
// An error in one step does not keep the others from their work: where the ledger cannot be
// written, the quotas are still enforced as it says. All errors are joined but for
// applier.ErrForbidden, which is for an administrator: see applier.WorthRetry.
func (c *Controller) Reconcile(ctx context.Context, namespace string) (requeueAfter time.Duration, err error) {
	var idle time.Duration
	if c.informers != nil {
		var ready bool
		if ready, idle = c.informers.prepare(namespace); !ready {
			return 0, nil // it enqueues the namespace when it is
		}
	}
	report := Report{Namespace: namespace}
	var errs []error
	snapshot, unread := c.caches.Snapshot(ctx, namespace)
	snapshot.Now = c.options.Now()
	if unread != nil {
		errs = append(errs, unread) // the ledger stays as it is
	} else {
		report.InFlight = c.answers.inFlight(namespace, snapshot)
		if c.informers != nil && len(report.InFlight) > 0 {
			c.informers.keep(namespace)
		}
		if err := c.ledger.Replace(ctx, namespace, report.InFlight); err != nil {
			errs = append(errs, fmt.Errorf("namespace %q: record %d migrations: %w", namespace, len(report.InFlight), err))
		}
	}
	if c.applier != nil {
		report.Result, err = c.applier.Apply(ctx, namespace)
		errs, requeueAfter = append(errs, applier.WorthRetry(err)), report.Result.RequeueAfter
	}
	if report.Quotas, err = c.quotas(ctx, namespace); err != nil {
		errs = append(errs, fmt.Errorf("namespace %q: list ResourceQuotas: %w", namespace, err))
	}
	after, err := c.nudger.nudgeAll(ctx, namespace, snapshot, report.InFlight, report.Quotas, report.Result.Offered())
	errs = append(errs, err)
	report.Waiting = Waiting(snapshot, report.InFlight, report.Result.Quotas)
	for _, after := range []time.Duration{after, idle, c.tellWaiting(report, snapshot)} {
		if requeueAfter == 0 || after > 0 && after < requeueAfter {
			requeueAfter = after
		}
	}
	c.tell(report, snapshot)
	report.Err = errors.Join(errs...)
	if c.options.Reconciled != nil {
		c.options.Reconciled(ctx, report)
	}
	return requeueAfter, report.Err
}
