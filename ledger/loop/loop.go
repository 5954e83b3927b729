// Package loop is the work queue of a controller that has none of its own: client-go's
// rate-limiting queue, keyed by namespace, with coalescing and a spread start.
//
//	l, err := loop.New(loop.Config{Reconcile: controller.Reconcile, Namespaces: namespaces})
//	...
//	pods.AddEventHandler(l.Handler(migration.NamespaceOf))
//	...
//	l.Run(ctx) // after the caches have synced
//
// # When a namespace is reconciled
//
// After an event at once, but no sooner than 4 ms after the last reconcile began.
// All events in between cost one more reconcile at the end of the gap. No event is missed:
// a reconcile always begins after the last of them.
//
// At the start and on every resync the namespaces are spread over some time, so that a
// restart over thousands of namespaces is no load on the API server. An event does not wait
// for that.
//
// After an error a namespace is reconciled again with an exponential back-off.
package loop

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// A Config is what a [Loop] works with.
type Config struct {
	// Reconcile reconciles one namespace. RequeueAfter is when to call it again if
	// nothing happens before; zero means not at all. After an error it is called again
	// with a back-off, and with RequeueAfter if that is sooner. Calls for the same
	// namespace never overlap. It is required.
	Reconcile func(ctx context.Context, namespace string) (requeueAfter time.Duration, err error)
	// Namespaces returns the names of all namespaces, best from a cache. They are
	// reconciled at the start and on every resync. If nil, only events count.
	Namespaces func() ([]string, error)
	// Urgent reports whether the namespace of an object is reconciled at once when an
	// informer's initial list contains the object, such as migration.InProgress. If nil, no
	// namespace is urgent.
	Urgent func(object any) bool

	// Resync is how often all namespaces are reconciled, and the time over which that is
	// spread. Zero means 10 min.
	Resync time.Duration
	// Workers is how many namespaces are reconciled at the same time. Zero means 4.
	Workers int

	gap, spread time.Duration // for tests; zero: minGap and startSpread
}

const (
	minGap      = 4 * time.Millisecond // between the beginnings of two reconciles of the same namespace
	startSpread = 30 * time.Second     // over which the namespaces are reconciled at the start
)

// A Loop reconciles namespaces. [New] makes one. It is safe for concurrent use.
type Loop struct {
	config Config
	seed   maphash.Seed // so that each process spreads the namespaces otherwise
	queue  workqueue.TypedRateLimitingInterface[string]

	mu   sync.Mutex
	gaps map[string]bool // namespaces whose last reconcile began less than a gap ago, and whether they were added since
}

// New returns a Loop. It fails if Reconcile is missing, or if anything is negative.
func New(config Config) (*Loop, error) {
	if config.Reconcile == nil {
		return nil, errors.New("a loop needs Reconcile")
	}
	if config.Resync < 0 || config.Workers < 0 {
		return nil, errors.New("a loop cannot have a negative resync or negative workers")
	}
	config.gap, config.spread = cmp.Or(config.gap, minGap), cmp.Or(config.spread, startSpread)
	config.Resync = cmp.Or(config.Resync, 10*time.Minute)
	config.Workers = cmp.Or(config.Workers, 4)
	backOff := workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute)
	return &Loop{
		config: config, seed: maphash.MakeSeed(), queue: workqueue.NewTypedRateLimitingQueue(backOff), gaps: map[string]bool{},
	}, nil
}

// Add asks for a reconcile of namespace, also before Run was called: at once, or when the
// gap after the last one has passed. The empty namespace is ignored. It returns at once.
func (l *Loop) Add(namespace string) {
	if namespace == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, recent := l.gaps[namespace]; recent {
		l.gaps[namespace] = true
		return
	}
	l.queue.Add(namespace)
}

// beginGap has Add wait for the end of the gap after a reconcile of namespace.
func (l *Loop) beginGap(namespace string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps[namespace] = false
	time.AfterFunc(l.config.gap, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.gaps[namespace] {
			l.queue.Add(namespace)
		}
		delete(l.gaps, namespace)
	})
}

// within adds namespace somewhere within a time, always at the same place.
func (l *Loop) within(spread time.Duration, namespace string) {
	if namespace == "" {
		return
	}
	const parts = 1 << 16
	l.queue.AddAfter(namespace, spread/parts*time.Duration(maphash.String(l.seed, namespace)%parts))
}

// Handler returns an event handler for an informer, which adds the namespace that
// namespaceOf returns for an object, such as migration.Namespace; an object with "" is
// ignored. It receives what informers hand out, tombstones of missed deletions included.
//
// What the initial list contains is spread, unless it is Config.Urgent. Updates without a
// new resourceVersion, as informers send them when they resync, are ignored.
func (l *Loop) Handler(namespaceOf func(object any) string) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, isInInitialList bool) {
			if isInInitialList && (l.config.Urgent == nil || !l.config.Urgent(object)) {
				l.within(l.config.spread, namespaceOf(object))
				return
			}
			l.Add(namespaceOf(object))
		},
		UpdateFunc: func(before, after any) {
			b, ok := before.(metav1.Object)
			a, isToo := after.(metav1.Object)
			if !ok || !isToo || a.GetResourceVersion() == "" || a.GetResourceVersion() != b.GetResourceVersion() {
				l.Add(namespaceOf(after))
			}
		},
		DeleteFunc: func(object any) { l.Add(namespaceOf(object)) },
	}
}

// Run reconciles namespaces until ctx is done, and returns when the last reconcile has. Call
// it once, when the caches that Reconcile reads have synced. Errors are logged by the
// logger in ctx.
func (l *Loop) Run(ctx context.Context) {
	var working wait.Group
	for range l.config.Workers {
		working.Start(func() {
			for namespace, done := l.queue.Get(); !done && ctx.Err() == nil; namespace, done = l.queue.Get() {
				l.reconcile(ctx, namespace)
			}
		})
	}
	l.all(ctx, l.config.spread)
	resync := time.NewTicker(l.config.Resync)
	defer resync.Stop()
	for ctx.Err() == nil {
		select {
		case <-resync.C:
			l.all(ctx, l.config.Resync)
		case <-ctx.Done():
		}
	}
	l.queue.ShutDown()
	working.Wait()
}

// all adds all namespaces, spread over a time.
func (l *Loop) all(ctx context.Context, over time.Duration) {
	if l.config.Namespaces == nil {
		return
	}
	namespaces, err := l.config.Namespaces()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list the namespaces")
		return
	}
	for _, namespace := range namespaces {
		l.within(over, namespace)
	}
}

// reconcile reconciles namespace, which the queue has handed out.
func (l *Loop) reconcile(ctx context.Context, namespace string) {
	defer l.queue.Done(namespace)
	l.beginGap(namespace)
	requeueAfter, err := l.config.Reconcile(ctx, namespace)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot reconcile, backing off", "namespace", namespace)
		l.queue.AddRateLimited(namespace)
	} else {
		l.queue.Forget(namespace)
	}
	if requeueAfter > 0 {
		l.queue.AddAfter(namespace, requeueAfter)
	}
}
