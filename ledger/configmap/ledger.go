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
	cache  *cached // nil: every read is live
	turns  turns.Turns[struct{}]
}

var _ ledger.Ledger = (*Ledger)(nil)

// An Option is something that [New] can do without.
type Option func(*Ledger)

// WithInformer makes the ledger read from the cache of informer, and gives it
// [Ledger.OnChange]. The informer is one of ConfigMaps, in the system namespace or in
// all, best narrowed down by [Select]. The caller starts it, before or after. Until it has
// synced, reads are live.
func WithInformer(informer Informer) Option {
	return func(l *Ledger) { l.cache = &cached{informer: informer, system: l.system, latest: map[string]*known{}} }
}

// New returns the ledger in the namespace system, such as one for clientset.CoreV1() and
// "headroom". Nothing is read before the first call.
func New(client typedcorev1.ConfigMapsGetter, system string, options ...Option) *Ledger {
	l := &Ledger{client: client, system: system}
	for _, option := range options {
		option(l)
	}
	return l
}

// Migrations implements ledger.Ledger. A ledger.ErrPartial has an [Error] inside for each key
// that cannot be read.
func (l *Ledger) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	if err := l.check(ctx, namespace); err != nil {
		return nil, err
	}
	current, err := l.current(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return l.read(namespace, current)
}

// Replace implements ledger.Ledger. It replaces entries that cannot be read, too.
//
// What cannot be recorded is left out, while all the rest is recorded: an amount that nobody
// can read again, with an [Error] that names its migration, and of migrations that do not fit
// those that have not come far, with [ErrTooLarge]. A conflict with another writer is resolved
// on fresh data, for some seconds at most; then the error is the API server's conflict.
func (l *Ledger) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	if err := l.check(ctx, namespace); err != nil {
		return err
	}
	migrations = ledger.Canonical(migrations)
	_, done, err := l.turns.Take(ctx, namespace) // writers of one process do not conflict
	if err != nil {
		return err
	}
	defer done(false)

	current, err := l.current(ctx, namespace)
	pauses := pausesAfterConflicts
	for err == nil {
		err = l.attempt(ctx, namespace, current, migrations)
		if !errors.Is(err, errOutdated) || pauses.Steps <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauses.Step()):
			current, err = l.live(ctx, namespace)
		}
	}
	return err
}

// pausesAfterConflicts are short at first, because there are hardly ever more than two
// writers, and last some three seconds in all.
var pausesAfterConflicts = wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1.3, Jitter: 0.5, Steps: 20}

// errOutdated says that a write was computed from data that is not the latest.
var errOutdated = errors.New("the configmap has changed meanwhile")

// attempt makes migrations the ones in current, if they are not.
func (l *Ledger) attempt(ctx context.Context, tenant string, current *corev1.ConfigMap, migrations []quota.Migration) error {
	recorded, unread := l.read(tenant, current)
	next, leftOut := l.next(tenant, current, recorded, migrations)
	if next == current {
		return leftOut
	}
	if unread != nil {
		klog.FromContext(ctx).Info("Replacing entries of the ledger that cannot be read", "err", unread)
	}
	return errors.Join(l.write(ctx, tenant, current, next), leftOut)
}

// write replaces current by next, either of which is nil if there is none.
func (l *Ledger) write(ctx context.Context, tenant string, current, next *corev1.ConfigMap) error {
	if err := ctx.Err(); err != nil { // it may have ended in a pause
		return err
	}
	client, answered := l.client.ConfigMaps(l.system), l.cache.ask(tenant)
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
	if err == nil {
		answered(written, true)
		return nil
	}
	answered(nil, false)
	gone := apierrors.IsNotFound(err) && current != nil // of a create it says that there is no system namespace
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || gone:
		err = fmt.Errorf("%w: %w", errOutdated, err)
	case apierrors.IsRequestEntityTooLargeError(err):
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return l.errorAt(tenant, "", err)
}

// current returns the ConfigMap of a tenant, or nil if there is none: from the cache if there
// is one and it is good enough. It is not to be changed.
func (l *Ledger) current(ctx context.Context, tenant string) (*corev1.ConfigMap, error) {
	if configMap, ok := l.cache.get(tenant); ok {
		return configMap, nil
	}
	return l.live(ctx, tenant)
}

// live is current without the cache.
func (l *Ledger) live(ctx context.Context, tenant string) (*corev1.ConfigMap, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answered := l.cache.ask(tenant)
	configMap, err := l.client.ConfigMaps(l.system).Get(ctx, Name(tenant), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		configMap, err = nil, nil
	}
	if err != nil {
		return nil, l.errorAt(tenant, "", err)
	}
	answered(configMap, true)
	return configMap, nil
}

// check returns the error of a call for this namespace that must not be carried out.
func (l *Ledger) check(ctx context.Context, namespace string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if namespace == "" {
		return ledger.ErrNoNamespace
	}
	if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
		return l.errorAt(namespace, "", fmt.Errorf("not the name of a namespace: %s", strings.Join(faults, "; ")))
	}
	return nil
}

// errorAt returns err as an Error; key is empty if it is about the whole ConfigMap.
func (l *Ledger) errorAt(tenant, key string, err error) error {
	return &Error{Namespace: tenant, ConfigMap: l.system + "/" + Name(tenant), Key: key, Err: err}
}
