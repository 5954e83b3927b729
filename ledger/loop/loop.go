package loop

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// What a Config means where it says nothing.
const (
	DefaultGap     = 200 * time.Millisecond
	DefaultSpread  = 30 * time.Second
	DefaultResync  = 10 * time.Minute
	DefaultWorkers = 4
)

// A Config is what a [Loop] works with.
type Config struct {
	// Look looks at one namespace, and does what there is to do. Again is after what
	// time to look again if nothing happens before, zero for not at all. After an error
	// it is looked at again soon. Calls for the same namespace never overlap. It is
	// required.
	Look func(ctx context.Context, namespace string) (again time.Duration, err error)
	// Namespaces returns the names of all namespaces, best from a cache. They are looked
	// at in the beginning and at each resync, which finds what no event told of. Nil:
	// only events count.
	Namespaces func() ([]string, error)
	// Now tells the time. It is required; time.Now is what most callers want.
	Now func() time.Time
	// Urgent says of which objects among those that an informer finds in the beginning
	// the namespaces are looked at at once, such as migration.InProgress. Nil: of none.
	Urgent func(object any) bool

	// Gap is the least time between the beginnings of two looks at the same namespace.
	// Zero: DefaultGap.
	Gap time.Duration
	// Spread is the time over which all namespaces are looked at in the beginning. Zero:
	// DefaultSpread.
	Spread time.Duration
	// Resync is how often all namespaces are looked at, and the time over which that is
	// spread. Zero: DefaultResync.
	Resync time.Duration
	// Workers is how many namespaces are looked at at the same time. Zero:
	// DefaultWorkers.
	Workers int

	// Looked is told of each look, for metrics. Nil: nobody is told.
	Looked func(ctx context.Context, namespace string, err error)
}

// A Loop looks at namespaces. [New] makes one. It is safe for concurrent use.
type Loop struct {
	config Config
	seed   maphash.Seed  // so that each process spreads the namespaces otherwise
	wake   chan struct{} // of capacity 1: the agenda has changed

	mu     sync.Mutex
	agenda *agenda
}

// New returns a Loop. It fails if Look or Now is missing, or if anything is negative.
func New(config Config) (*Loop, error) {
	if config.Look == nil || config.Now == nil {
		return nil, errors.New("a loop needs Look and Now")
	}
	if config.Gap < 0 || config.Spread < 0 || config.Resync < 0 || config.Workers < 0 {
		return nil, errors.New("a loop cannot have negative times or workers")
	}
	config.Gap = orDefault(config.Gap, DefaultGap)
	config.Spread = orDefault(config.Spread, DefaultSpread)
	config.Resync = orDefault(config.Resync, DefaultResync)
	config.Workers = orDefault(config.Workers, DefaultWorkers)
	return &Loop{config: config, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1), agenda: newAgenda(config.Gap)}, nil
}

func orDefault[T int | time.Duration](value, byDefault T) T {
	if value == 0 {
		return byDefault
	}
	return value
}

// Add asks for a look at namespace, also before Run was called. The empty namespace is
// none. It returns at once.
func (l *Loop) Add(namespace string) { l.within(0, namespace) }

// within adds namespace at its turn within a time.
func (l *Loop) within(spread time.Duration, namespace string) {
	if namespace == "" {
		return
	}
	l.mu.Lock()
	l.agenda.want(namespace, l.config.Now().Add(l.turn(namespace, spread)))
	l.mu.Unlock()
	l.woken()
}

func (l *Loop) woken() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Handler returns an event handler for an informer, which adds the namespace that
// concerned returns for an object, such as migration.Namespace; "" is none. It is given
// what informers hand out, tombstones of missed deletions included.
//
// What an informer finds in the beginning is spread, unless it is Config.Urgent. Updates
// that change nothing, as informers make them up when they resync, do not count.
func (l *Loop) Handler(concerned func(object any) string) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, inBeginning bool) {
			spread := time.Duration(0)
			if inBeginning && (l.config.Urgent == nil || !l.config.Urgent(object)) {
				spread = l.config.Spread
			}
			l.within(spread, concerned(object))
		},
		UpdateFunc: func(before, after any) {
			if !unchanged(before, after) {
				l.Add(concerned(after))
			}
		},
		DeleteFunc: func(object any) { l.Add(concerned(object)) },
	}
}

// unchanged reports whether an update is one that informers make up when they resync.
func unchanged(before, after any) bool {
	type versioned interface{ GetResourceVersion() string }
	b, ok := before.(versioned)
	a, isToo := after.(versioned)
	return ok && isToo && a.GetResourceVersion() != "" && a.GetResourceVersion() == b.GetResourceVersion()
}

// turn returns when within a time it is the turn of namespace: somewhere, always the same.
func (l *Loop) turn(namespace string, within time.Duration) time.Duration {
	const parts = 1 << 16
	return within / parts * time.Duration(maphash.String(l.seed, namespace)%parts)
}

// Run looks at namespaces until ctx is done, and returns when the last look has. Call it
// when the caches that Look reads have synced, and once. Errors of looks are logged (by
// klog's logger in ctx), those of Namespaces too.
func (l *Loop) Run(ctx context.Context) {
	workers := make(chan struct{}, l.config.Workers)
	var looks sync.WaitGroup
	defer looks.Wait()
	resync := time.NewTicker(l.config.Resync)
	defer resync.Stop()
	l.all(ctx, l.config.Spread)
	for {
		select {
		case workers <- struct{}{}:
		case <-resync.C:
			l.all(ctx, l.config.Resync)
			continue
		case <-ctx.Done():
			return
		}
		namespace, wait := l.next()
		if namespace == "" {
			<-workers
			if !l.sleep(ctx, wait, resync.C) {
				return
			}
			continue
		}
		looks.Add(1)
		go func() {
			defer looks.Done()
			l.look(ctx, namespace)
			<-workers
		}()
	}
}

func (l *Loop) next() (namespace string, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.agenda.next(l.config.Now())
}

// sleep waits until there may be something to do: for a time, for good if that is zero,
// or until the agenda changes. It reports whether to go on.
func (l *Loop) sleep(ctx context.Context, wait time.Duration, resync <-chan time.Time) bool {
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-timeout:
	case <-l.wake:
	case <-resync:
		l.all(ctx, l.config.Resync)
	case <-ctx.Done():
		return false
	}
	return true
}

// all adds all namespaces, spread over a time.
func (l *Loop) all(ctx context.Context, over time.Duration) {
	l.mu.Lock()
	l.agenda.sweep(l.config.Now())
	l.mu.Unlock()
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

func (l *Loop) look(ctx context.Context, namespace string) {
	again, err := l.config.Look(ctx, namespace)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot keep the quotas right, trying again", "namespace", namespace)
	}
	if l.config.Looked != nil {
		l.config.Looked(ctx, namespace, err)
	}
	l.mu.Lock()
	l.agenda.done(namespace, l.config.Now(), again, err)
	l.mu.Unlock()
	l.woken()
}
