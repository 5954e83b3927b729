package configmap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/wait"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/internal/turns"
	"github.com/vmquota/headroom/quota"
)

// A Ledger is a ledger.Ledger in the ConfigMaps of a system namespace. [New] makes one.
// All processes that use the same system namespace share one record.
//
// All its errors but those of ledger.Ledger's own contract are, or have inside, an
// [Error].
type Ledger struct {
	client typedcorev1.ConfigMapsGetter
	system string
	writer string
	cache  *cached // nil: every read is live
	turns  turns.Turns[struct{}]
}

var _ ledger.Ledger = (*Ledger)(nil)

// An Option is something that [New] can do without.
type Option func(*Ledger)

// WithInformer makes the ledger read from the cache of informer, and gives it
// [Ledger.OnChange]. The informer is one of ConfigMaps, in the system namespace or in
// all, best narrowed down by [Select]. The caller starts it, before or after. As long as
// it is not synced, reads are live.
func WithInformer(informer Informer) Option {
	return func(l *Ledger) { l.cache = &cached{informer: informer, latest: map[string]*known{}} }
}

// WithWriter sets the name that an entry has for who wrote it, for people to read. The
// default is none. Entries that differ in it only are equal.
func WithWriter(name string) Option { return func(l *Ledger) { l.writer = name } }

// New returns the ledger in the namespace system, such as one for clientset.CoreV1() and
// "headroom". Nothing is read before the first call.
func New(client typedcorev1.ConfigMapsGetter, system string, options ...Option) *Ledger {
	l := &Ledger{client: client, system: system}
	for _, option := range options {
		option(l)
	}
	return l
}

// Migrations implements ledger.Ledger. If a part of the record cannot be read, the
// result is all the rest, and the error is a ledger.ErrPartial with an [Error] inside for
// each key. Everywhere else there is no result beside an error.
func (l *Ledger) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	p, err := l.place(ctx, namespace)
	if err != nil {
		return nil, err
	}
	current, err := l.current(ctx, p)
	if err != nil {
		return nil, err
	}
	c := p.read(current)
	return c.migrations, partial(c.unread)
}

// Replace implements ledger.Ledger. It replaces entries that cannot be read, too.
//
// What cannot be recorded is left out, and told by the error, while all the rest is
// recorded: an amount that nobody can read again, as an [Error] that names its migration,
// and of migrations that do not fit those that have not come far, with [ErrTooLarge]. A
// conflict with another writer is resolved on fresh data, for some seconds at most; then the
// error is the API server's conflict.
func (l *Ledger) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	p, err := l.place(ctx, namespace)
	if err != nil {
		return err
	}
	migrations = ledger.Canonical(migrations)
	_, done, err := l.turns.Take(ctx, namespace) // writers of one process do not conflict
	if err != nil {
		return err
	}
	defer done(false)

	current, err := l.current(ctx, p)
	if err != nil {
		return err
	}
	pauses := pausesAfterConflicts
	for {
		err := l.attempt(ctx, p, current, migrations)
		if !errors.Is(err, errOutdated) || pauses.Steps <= 0 {
			return err
		}
		if err := sleep(ctx, pauses.Step()); err != nil {
			return err
		}
		if current, err = l.live(ctx, p); err != nil {
			return err
		}
	}
}

// attempt makes migrations the ones in current, if they are not.
func (l *Ledger) attempt(ctx context.Context, p place, current *corev1.ConfigMap, migrations []quota.Migration) error {
	c := p.read(current)
	next, leftOut := p.next(current, c, migrations, l.writer)
	if next == current {
		return leftOut
	}
	log := klog.FromContext(ctx).WithValues("configMap", klog.KRef(p.system, p.name()))
	if len(c.unread) > 0 {
		log.Info("Replacing entries of the ledger that cannot be read", "err", partial(c.unread))
	}
	if len(c.foreign) > 0 {
		log.V(2).Info("Ignored keys that are not of the ledger", "keys", c.foreign)
	}
	return errors.Join(l.write(ctx, p, current, next), leftOut)
}

// pausesAfterConflicts are short at first, because there are hardly ever more than two
// writers, and last some three seconds in all.
var pausesAfterConflicts = wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1.3, Jitter: 0.5, Steps: 20}

// errOutdated says that a write was computed from data that is not the latest.
var errOutdated = errors.New("the configmap has changed meanwhile")

// write replaces current by next, either of which is nil if there is none.
func (l *Ledger) write(ctx context.Context, p place, current, next *corev1.ConfigMap) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	client := l.client.ConfigMaps(l.system)
	var written *corev1.ConfigMap
	var err error
	switch {
	case current == nil:
		written, err = client.Create(ctx, next, metav1.CreateOptions{})
	case next == nil:
		err = client.Delete(ctx, current.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &current.UID, ResourceVersion: &current.ResourceVersion},
		})
	default:
		written, err = client.Update(ctx, next, metav1.UpdateOptions{})
	}
	if err != nil {
		l.cache.doubt(p)
		gone := apierrors.IsNotFound(err) && current != nil // of a create it says that there is no system namespace
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || gone {
			err = fmt.Errorf("%w: %w", errOutdated, err)
		}
		if apierrors.IsRequestEntityTooLargeError(err) {
			err = fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		return p.errorOf(err)
	}
	if next == nil {
		l.cache.deleted(p, current)
	} else {
		l.cache.wrote(p, written)
	}
	return nil
}

// current returns the ConfigMap of p, or nil if there is none: from the cache if there
// is one and it is good enough. It is not to be changed.
func (l *Ledger) current(ctx context.Context, p place) (*corev1.ConfigMap, error) {
	if configMap, ok := l.cache.get(p); ok {
		return configMap, nil
	}
	return l.live(ctx, p)
}

// live is current without the cache.
func (l *Ledger) live(ctx context.Context, p place) (*corev1.ConfigMap, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	before := l.cache.glance(p)
	configMap, err := l.client.ConfigMaps(l.system).Get(ctx, p.name(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		configMap, err = nil, nil
	}
	if err != nil {
		return nil, p.errorOf(err)
	}
	l.cache.saw(p, before, configMap)
	return configMap, nil
}

// place checks what every call checks first.
func (l *Ledger) place(ctx context.Context, namespace string) (place, error) {
	p := place{tenant: namespace, system: l.system}
	if err := ctx.Err(); err != nil {
		return p, err
	}
	if namespace == "" {
		return p, ledger.ErrNoNamespace
	}
	if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
		return p, p.errorOf(fmt.Errorf("not the name of a namespace: %s", strings.Join(faults, "; ")))
	}
	return p, nil
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
