package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
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

	// Workers and Resync are those of loop.Config. Zero means its defaults.
	Workers int
	Resync  time.Duration
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
	// Behind is by how much the pods of virtual machines that the cache shows exceed status.used,
	// by the name of the quota, while a migration that is over has a losing pod. If it lasts, the
	// cache of pods is late, or kube-controller-manager has not counted a pod yet. A migration that
	// is over and whose surge it covers is not in InFlight. It is empty if pods and quotas agree.
	Behind map[string]corev1.ResourceList
	Result applier.Result
	Err    error
}

// A Controller enforces the effective limits of one cluster while its virtual machines
// migrate: it reads the migrations in flight from KubeVirt's objects, records them in a
// ledger, writes status.hard of the ResourceQuotas, and wakes KubeVirt where it sleeps
// although there is room. [NewController] makes one. It is safe for concurrent use.
//
// Leader election is the embedder's: call Start on all replicas and Work on the leader.
type Controller struct {
	options   Options // with the defaults
	clients   Clients
	caches    Caches
	quotas    List[corev1.ResourceQuota]
	applier   *applier.Applier // nil: RecordOnly
	loop      *loop.Loop
	informers *informers              // nil: the embedder's
	recording record.EventBroadcaster // nil: the embedder's
	histories sync.Map                // of history, by namespace
	working   context.Context         // of the reconciles that Work calls: it outlives that of Work a little
}

// A history is what a Controller remembers of a namespace from one reconcile to the next.
type history struct {
	answer answer
	nudges map[types.UID]nudge
	waits  map[types.UID]toldWait
	raised map[types.UID]bool // the quotas with an event HeadroomRaised and no HeadroomRestored since

	behind     time.Time // since when Report.Behind is not empty
	toldBehind bool
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
	c := &Controller{options: options, clients: clients, quotas: options.Quotas}
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	var err error
	c.loop, err = loop.New(loop.Config{
		Reconcile: func(_ context.Context, namespace string) (time.Duration, error) {
			return c.Reconcile(c.working, namespace)
		},
		Namespaces: c.namespaces, Urgent: InProgress,
		Workers: options.Workers, Resync: options.Resync,
	})
	if err != nil {
		return nil, err
	}
	if c.options.Enqueue == nil {
		c.options.Enqueue = c.loop.Add
	}
	if options.Caches != nil {
		c.caches = *options.Caches
	} else if err := c.watch(); err != nil {
		return nil, err
	}
	if options.RecordOnly {
		return c, nil
	}
	c.applier, err = applier.New(applier.Config{
		Ledger: c.options.Ledger, Quotas: clients.Core.CoreV1(), List: c.quotas, Now: c.options.Now,
		Policy: options.Policy, Disabled: options.Disabled, DisabledFor: c.disabledFor,
		Guard: options.Guard, Parallel: options.Parallel, Enqueue: c.Enqueue,
		Recorder: c.options.Recorder, Metrics: options.Metrics,
	})
	return c, err
}

// setDefaults fills in what options leave out.
func (c *Controller) setDefaults() error {
	o := &c.options
	o.DrainTime = cmp.Or(o.DrainTime, 5*time.Second)
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the default of a running controller
	}
	if o.Owns == nil {
		o.Owns = func(string) bool { return true }
	}
	if o.Ledger == nil {
		o.Ledger = memory.New()
	}
	if o.Patch == nil {
		o.Patch = func(ctx context.Context, namespace, name string, patch []byte) error {
			client := c.clients.KubeVirt.Resource(migrationsResource).Namespace(namespace)
			_, err := client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		}
	}
	if o.Recorder == nil {
		scheme := runtime.NewScheme()
		if err := errors.Join(corev1.AddToScheme(scheme), kubevirtv1.AddToScheme(scheme)); err != nil {
			return err
		}
		c.recording = record.NewBroadcaster()
		o.Recorder = c.recording.NewRecorder(scheme, corev1.EventSource{Component: Component})
	}
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
		c.recording.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.clients.Core.CoreV1().Events("")})
		defer c.recording.Shutdown()
	}
	var cancel context.CancelFunc
	c.working, cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.options.DrainTime, cancel) })()
	c.loop.Run(ctx)
}

// Enqueue asks for a reconcile of namespace. The empty namespace is ignored.
func (c *Controller) Enqueue(namespace string) {
	if namespace != "" && c.options.Owns(namespace) {
		c.options.Enqueue(namespace)
	}
}

// Handler returns an event handler for an embedder's informers of the kinds in [Caches] and
// of ResourceQuotas. What it is handed out in the initial list is spread.
func (c *Controller) Handler() cache.ResourceEventHandler {
	return c.loop.Handler(func(object any) string {
		if namespace := NamespaceOf(object); namespace != "" && c.options.Owns(namespace) {
			return namespace
		}
		return ""
	})
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
	past := c.recall(namespace)
	defer func() { c.remember(namespace, past) }()
	snapshot, unread := c.caches.Snapshot(ctx, namespace)
	snapshot.Now = c.options.Now()
	if unread != nil {
		errs = append(errs, unread) // the ledger stays as it is
	} else {
		report.InFlight = past.inFlight(snapshot)
		quotas, err := c.quotas(ctx, namespace)
		if c.informers != nil && worthWatching(report.InFlight, quotas) {
			c.informers.keep(namespace)
		}
		// The losing pod of a migration that is over may have ended.
		if err == nil && slices.ContainsFunc(report.InFlight, func(m quota.Migration) bool { return m.Over }) {
			report.compare(snapshot, quotas, past.behind)
		}
		if err := c.options.Ledger.Replace(ctx, namespace, report.InFlight); err != nil {
			errs = append(errs, fmt.Errorf("namespace %q: record %d migrations: %w", namespace, len(report.InFlight), err))
		}
	}
	var applyErr error
	if c.applier != nil {
		report.Result, applyErr = c.applier.Apply(ctx, namespace)
		applyErr = applier.WorthRetry(applyErr)
		errs, requeueAfter = append(errs, applyErr), report.Result.RequeueAfter
	}
	if report.Quotas, err = c.quotas(ctx, namespace); err != nil {
		errs = append(errs, fmt.Errorf("namespace %q: list ResourceQuotas: %w", namespace, err))
	}
	after, err := c.nudge(ctx, &past, report, snapshot)
	errs = append(errs, err)
	report.Waiting = Waiting(snapshot, report.InFlight, report.Result.Quotas)
	requeueAfter = sooner(requeueAfter, after, idle,
		c.tellWaiting(&past, report, snapshot), c.tellBehind(ctx, &past, report, snapshot.Now))
	c.tell(&past, report, snapshot, applyErr == nil)
	report.Err = errors.Join(errs...)
	if c.options.Reconciled != nil {
		c.options.Reconciled(ctx, report)
	}
	return requeueAfter, report.Err
}

// recall returns what is remembered of namespace, for the caller alone.
func (c *Controller) recall(namespace string) history {
	past, _ := c.histories.LoadAndDelete(namespace)
	h, _ := past.(history)
	return h
}

// remember has the next recall of namespace return h, if there is anything in it.
func (c *Controller) remember(namespace string, h history) {
	if h.answer.inFlight != nil || !h.behind.IsZero() || len(h.nudges)+len(h.waits)+len(h.raised) > 0 {
		c.histories.Store(namespace, h)
	}
}

// sooner returns the least of some times to wait, of which zero is none at all.
func sooner(times ...time.Duration) time.Duration {
	var least time.Duration
	for _, t := range times {
		if least == 0 || t > 0 && t < least {
			least = t
		}
	}
	return least
}
