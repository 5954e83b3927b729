package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/vmquota/headroom/migration"
)

// SetupWithManager has mgr run a migration.Controller on the informers of its cache; see
// managerOptions for what these should hold. Of options it sets Caches, Quotas, Patch, Now
// and Enqueue.
func SetupWithManager(mgr ctrl.Manager, options migration.Options) error {
	core, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	options.Patch = patcher(mgr.GetClient())
	r, err := newReconciler(mgr.GetCache(), core, options)
	if err != nil {
		return err
	}
	return r.watch(mgr)
}

// A reconciler reconciles a namespace at a time. Its requests name a namespace, not an
// object: what the limits must be depends on all that is in the namespace.
type reconciler struct {
	controller *migration.Controller
	turns      chan event.GenericEvent // namespaces in which a migration has its turn
}

// newReconciler reads from reader, which is a cache.
func newReconciler(reader client.Reader, core kubernetes.Interface, options migration.Options) (*reconciler, error) {
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
	turns := make(chan event.GenericEvent, 1000)
	options.Caches = &caches
	options.Quotas = listFrom(reader, func(l *corev1.ResourceQuotaList) []corev1.ResourceQuota { return l.Items })
	options.Enqueue = func(namespace string) {
		select {
		case turns <- event.GenericEvent{Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}}:
		default: // it has its turn with the next event there
		}
	}
	controller, err := migration.NewController(migration.Clients{Core: core}, options)
	return &reconciler{controller: controller, turns: turns}, err
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	requeueAfter, err := r.controller.Reconcile(ctx, request.Name)
	return reconcile.Result{RequeueAfter: requeueAfter}, err
}

// watch has mgr call r after every event that concerns a namespace's migrations or quotas.
func (r *reconciler) watch(mgr ctrl.Manager) error {
	concerned := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return requestFor(migration.NamespaceOf(object))
	})
	changed := builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})
	b := ctrl.NewControllerManagedBy(mgr).Named("headroom").WatchesRawSource(source.Channel(r.turns, concerned))
	for _, object := range []client.Object{
		&corev1.ResourceQuota{}, &kubevirtv1.VirtualMachineInstanceMigration{}, &kubevirtv1.VirtualMachineInstance{},
		&corev1.Pod{}, &corev1.LimitRange{}, &corev1.PersistentVolumeClaim{}, &corev1.Event{},
	} {
		b = b.Watches(object, concerned, changed)
	}
	return b.Complete(r)
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

// patcher nudges KubeVirt.
func patcher(c client.Client) func(ctx context.Context, namespace, name string, patch []byte) error {
	return func(ctx context.Context, namespace, name string, patch []byte) error {
		vmim := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		return c.Patch(ctx, vmim, client.RawPatch(types.MergePatchType, patch))
	}
}
