package rancher

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
)

// A Loop calls an applier for the namespaces that it is told of: at once, again when the
// applier asks for it, and again after an error, with growing pauses up to a minute.
// [NewLoop] makes one.
type Loop struct {
	applier *applier.Applier
	failed  func(namespace string, err error)
	queue   workqueue.TypedRateLimitingInterface[string]
}

// NewLoop returns a Loop. Failed is told of every error of the applier, for a log; nil:
// nobody is told.
//
// Two things tell it of namespaces, and it needs both: the ledger, by its OnChange with
// [Loop.Enqueue], and an undecorated informer of the ResourceQuotas, by [Loop.Handler].
// The informer's resync is enough for what is missed.
func NewLoop(a *applier.Applier, failed func(namespace string, err error)) *Loop {
	const first, last = 5 * time.Millisecond, time.Minute
	if failed == nil {
		failed = func(string, error) {}
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](first, last)
	return &Loop{applier: a, failed: failed, queue: workqueue.NewTypedRateLimitingQueue(limiter)}
}

// Enqueue asks for a look at namespace. It returns at once.
func (l *Loop) Enqueue(namespace string) {
	if namespace != "" {
		l.queue.Add(namespace)
	}
}

// Handler returns a handler of the events of ResourceQuotas that asks for a look at their
// namespaces.
func (l *Loop) Handler() cache.ResourceEventHandler {
	enqueue := func(o any) {
		if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = tombstone.Obj
		}
		if accessor, err := meta.Accessor(o); err == nil {
			l.Enqueue(accessor.GetNamespace())
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, after any) { enqueue(after) },
		DeleteFunc: enqueue,
	}
}

// Run works until ctx is done, with so many workers (one at least), and waits for what
// they are doing then. A Loop runs once.
func (l *Loop) Run(ctx context.Context, workers int) {
	stop := context.AfterFunc(ctx, l.queue.ShutDown)
	defer stop()
	var group sync.WaitGroup
	for range max(workers, 1) {
		group.Add(1)
		go func() {
			defer group.Done()
			for l.next(ctx) {
			}
		}()
	}
	group.Wait()
}

// next works on one namespace. It reports whether the queue goes on.
func (l *Loop) next(ctx context.Context) bool {
	namespace, done := l.queue.Get()
	if done {
		return false
	}
	defer l.queue.Done(namespace)
	result, err := l.applier.Apply(ctx, namespace)
	if err != nil && ctx.Err() == nil {
		l.failed(namespace, err)
	}
	if err != nil && passes(result, err) {
		l.queue.AddRateLimited(namespace)
		return true
	}
	l.queue.Forget(namespace)
	if result.RetryAfter > 0 {
		l.queue.AddAfter(namespace, result.RetryAfter)
	}
	return true
}

// passes reports whether any part of err is worth another try before anything changes.
func passes(result applier.Result, err error) bool {
	for _, q := range result.Quotas {
		if q.Err != nil && !errors.Is(q.Err, applier.ErrForbidden) && !errors.Is(q.Err, applier.ErrUnreadable) {
			return true
		}
	}
	return len(result.Quotas) == 0 && !errors.Is(err, ledger.ErrPartial)
}
