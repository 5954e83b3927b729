package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/migration"
)

// A reconciler keeps the quotas of a namespace right. Its requests name a namespace, not
// an object: what the limits must be depends on all that is in the namespace.
type reconciler struct{ keeper migration.Keeper }

// newReconciler reads from reader, which is a cache; it writes quotas by quotas, and VMIMs
// by patch.
func newReconciler(
	reader client.Reader, quotas typedcorev1.ResourceQuotasGetter,
	patch func(ctx context.Context, namespace, name string, patch []byte) error, now func() time.Time,
) (*reconciler, error) {
	record := memory.New()
	listQuotas := listFrom(reader, func(l *corev1.ResourceQuotaList) []corev1.ResourceQuota { return l.Items })
	caches := migration.Caches{
		Migrations: listFrom(reader, func(l *kubevirtv1.VirtualMachineInstanceMigrationList) []kubevirtv1.VirtualMachineInstanceMigration {
			return l.Items
		}),
		VMIs: listFrom(reader, func(l *kubevirtv1.VirtualMachineInstanceList) []kubevirtv1.VirtualMachineInstance {
			return l.Items
		}),
		Pods:        listFrom(reader, func(l *corev1.PodList) []corev1.Pod { return l.Items }),
		LimitRanges: listFrom(reader, func(l *corev1.LimitRangeList) []corev1.LimitRange { return l.Items }),
		PVCs:        listFrom(reader, func(l *corev1.PersistentVolumeClaimList) []corev1.PersistentVolumeClaim { return l.Items }),
		Events:      listFrom(reader, func(l *corev1.EventList) []corev1.Event { return l.Items }),
	}
	writer, err := applier.New(applier.Config{Ledger: record, Quotas: quotas, List: listQuotas, Now: now})
	if err != nil {
		return nil, err
	}
	return &reconciler{migration.Keeper{
		Observer: &migration.Observer{Caches: caches, Ledger: record, Now: now},
		Applier:  writer,
		Nudger:   &migration.Nudger{Caches: caches, Quotas: listQuotas, Patch: patch, Now: now},
	}}, nil
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	again, err := r.keeper.Keep(ctx, request.Name)
	return reconcile.Result{RequeueAfter: again}, err
}

// watch has mgr call r for whatever happens that concerns a namespace's migrations or
// quotas.
func (r *reconciler) watch(mgr ctrl.Manager) error {
	onMigrations := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return requestFor(migration.Namespace(object))
	})
	onQuotas := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return requestFor(object.GetNamespace())
	})
	changed := builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})
	return ctrl.NewControllerManagedBy(mgr).
		Named("headroom").
		Watches(&corev1.ResourceQuota{}, onQuotas).
		Watches(&kubevirtv1.VirtualMachineInstanceMigration{}, onMigrations, changed).
		Watches(&kubevirtv1.VirtualMachineInstance{}, onMigrations, changed).
		Watches(&corev1.Pod{}, onMigrations, changed).
		Watches(&corev1.LimitRange{}, onMigrations, changed).
		Watches(&corev1.PersistentVolumeClaim{}, onMigrations, changed).
		Watches(&corev1.Event{}, onMigrations, changed).
		Complete(r)
}

func requestFor(namespace string) []reconcile.Request {
	if namespace == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: namespace}}}
}

// listFrom is a migration.List of what reader has, where items returns those of a list.
// The library only reads what it is given, so nothing is copied out of the cache.
func listFrom[T, L any, P interface {
	*L
	client.ObjectList
}](reader client.Reader, items func(*L) []T) migration.List[T] {
	return func(ctx context.Context, namespace string) ([]*T, error) {
		list := P(new(L))
		if err := reader.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
		found := items(list)
		pointers := make([]*T, len(found))
		for i := range found {
			pointers[i] = &found[i]
		}
		return pointers, nil
	}
}
