package process

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// Namespace is the system namespace that the ledger is in.
const Namespace = "headroom"

// Parts are what a [Library] is made of.
type Parts struct {
	Client     kubernetes.Interface
	Caches     migration.Caches
	Quotas     migration.List[corev1.ResourceQuota]
	ConfigMaps configmap.Informer // nil: the ledger reads from the API server
	Patch      func(ctx context.Context, namespace, name string, patch []byte) error
	Now        func() time.Time
	Recorder   record.EventRecorder // nil: there are no events
}

// A Library is everything that the library has for one controller.
type Library struct {
	Ledger   *configmap.Ledger
	observer migration.Observer
	nudger   migration.Nudger
	applier  *applier.Applier
}

// NewLibrary puts a Library together.
func NewLibrary(p Parts) (*Library, error) {
	var options []configmap.Option
	if p.ConfigMaps != nil {
		options = append(options, configmap.WithInformer(p.ConfigMaps))
	}
	record := configmap.New(p.Client.CoreV1(), Namespace, options...)
	writer, err := applier.New(applier.Config{
		Ledger: record, Quotas: p.Client.CoreV1(), List: p.Quotas, Now: p.Now, Recorder: p.Recorder,
	})
	if err != nil {
		return nil, err
	}
	return &Library{
		Ledger:   record,
		observer: migration.Observer{Caches: p.Caches, Ledger: record, Now: p.Now},
		nudger:   migration.Nudger{Caches: p.Caches, Quotas: p.Quotas, Patch: p.Patch, Now: p.Now, Recorder: p.Recorder},
		applier:  writer,
	}, nil
}

// Reconcile makes everything in namespace what it must be, and returns after what time
// to call it again. Each part does what it can if another one fails.
func (l *Library) Reconcile(ctx context.Context, namespace string) (time.Duration, error) {
	observed := l.observer.Observe(ctx, namespace)
	if observed != nil && !errors.Is(observed, ledger.ErrPartial) {
		return 0, observed // what is recorded is not true
	}
	applied, failed := l.applier.Apply(ctx, namespace)
	again, nudged := l.nudger.Nudge(ctx, namespace)
	if again == 0 || applied.RetryAfter != 0 && applied.RetryAfter < again {
		again = applied.RetryAfter
	}
	return again, errors.Join(observed, failed, nudged)
}

// Concerned returns the namespace to reconcile after an event of object, and "" if there
// is none. It takes what informers hand to their event handlers.
func Concerned(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch o := object.(type) {
	case *corev1.ResourceQuota:
		return o.Namespace
	case *corev1.ConfigMap:
		return o.Labels[configmap.Label]
	default:
		return migration.Namespace(object)
	}
}
