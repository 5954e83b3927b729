package migration

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A List returns the objects of one kind that a cache holds in namespace. They are
// read only. Any cache fits in one line: for a client-go indexer there is
// [FromIndexer]; of wrangler's caches it is
//
//	func(_ context.Context, namespace string) ([]*corev1.Pod, error) {
//		return pods.Cache().List(namespace, labels.Everything())
//	}
type List[T any] func(ctx context.Context, namespace string) ([]*T, error)

// Caches are those that the embedding controller has anyway. Nothing is watched a
// second time.
type Caches struct {
	Migrations List[kubevirtv1.VirtualMachineInstanceMigration]
	VMIs       List[kubevirtv1.VirtualMachineInstance]
	Pods       List[corev1.Pod]

	// Each of these may be nil. Without LimitRanges, the defaults that they give to target pods are
	// not known before those exist. Without PVCs, a second backend-storage claim is not counted.
	LimitRanges List[corev1.LimitRange]
	PVCs        List[corev1.PersistentVolumeClaim]
	// Without ResourceClaims, those of devices are not counted, and without DeviceClasses, of which
	// the namespace is to be ignored, not the extended resources that these stand for.
	ResourceClaims List[resourcev1.ResourceClaim]
	DeviceClasses  List[resourcev1.DeviceClass]
	// Without Events, target pods that are larger than their source shows stay refused;
	// see [Snapshot], also for whom they trust. [SelectRefusals] narrows the informer down.
	Events List[corev1.Event]
	// Namespace returns the namespace itself, nil if there is none; see [Snapshot]. Nil:
	// the memory limits that KubeVirt sets by itself are taken to be of its default ratio.
	Namespace func(ctx context.Context, name string) (*corev1.Namespace, error)
}

// Snapshot reads all caches for one namespace. Its error names the kind that could
// not be listed.
func (c Caches) Snapshot(ctx context.Context, namespace string) (Snapshot, error) {
	var err error
	s := Snapshot{
		Migrations:     list(ctx, c.Migrations, namespace, migrationsKind, &err),
		VMIs:           list(ctx, c.VMIs, namespace, instancesKind, &err),
		Pods:           list(ctx, c.Pods, namespace, podsKind, &err),
		LimitRanges:    list(ctx, c.LimitRanges, namespace, limitRangesKind, &err),
		PVCs:           list(ctx, c.PVCs, namespace, claimsKind, &err),
		ResourceClaims: list(ctx, c.ResourceClaims, namespace, resourceClaimsKind, &err),
		DeviceClasses:  list(ctx, c.DeviceClasses, namespace, deviceClassesKind, &err),
		Events:         list(ctx, c.Events, namespace, refusalsKind, &err),
	}
	if c.Namespace != nil && err == nil {
		if s.Namespace, err = c.Namespace(ctx, namespace); err != nil {
			err = fmt.Errorf("namespace %q: get the Namespace: %w", namespace, err)
		}
	}
	if err != nil {
		return Snapshot{}, err
	}
	return s, nil
}

// list returns what from lists, nothing if from is nil or after an error.
func list[T any](ctx context.Context, from List[T], namespace, kind string, failed *error) []*T {
	if from == nil || *failed != nil {
		return nil
	}
	objects, err := from(ctx, namespace)
	if err != nil {
		*failed = fmt.Errorf("namespace %q: list %s: %w", namespace, kind, err)
	}
	return objects
}

// FromIndexer lists from an indexer of client-go that has cache.NamespaceIndex, as
// those of shared informers have. Objects of another type than *T are an error; see
// [Typed] for dynamic informers.
func FromIndexer[T any](indexer cache.Indexer) List[T] {
	return func(_ context.Context, namespace string) ([]*T, error) {
		objects, err := indexer.ByIndex(cache.NamespaceIndex, namespace)
		if err != nil {
			return nil, err
		}
		return typed[T](objects)
	}
}

func typed[T any](objects []any) ([]*T, error) {
	list := make([]*T, 0, len(objects))
	for _, object := range objects {
		t, ok := object.(*T)
		if !ok {
			return nil, fmt.Errorf("the cache holds a %T, not a %T", object, t)
		}
		list = append(list, t)
	}
	return list, nil
}

// FromStore gets from a store of client-go that has Namespaces, as the informer of these
// has; for [Caches]. One that is not there is nil, not an error.
func FromStore(store cache.Store) func(ctx context.Context, name string) (*corev1.Namespace, error) {
	return func(_ context.Context, name string) (*corev1.Namespace, error) {
		object, exists, err := store.GetByKey(name)
		if err != nil || !exists {
			return nil, err
		}
		namespaces, err := typed[corev1.Namespace]([]any{object})
		return first(namespaces), err
	}
}

var _ cache.TransformFunc = Typed

// Typed makes KubeVirt's typed objects of what a dynamic informer receives, so that
// its cache fits [FromIndexer]; set it with SetTransform. It drops the managed
// fields. Whatever is neither a VMI nor a VMIM passes unchanged, and so do typed
// objects. A malformed object is an error that names it.
func Typed(object any) (any, error) {
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	var typed runtime.Object
	switch u.GetKind() {
	case "VirtualMachineInstance":
		typed = &kubevirtv1.VirtualMachineInstance{}
	case "VirtualMachineInstanceMigration":
		typed = &kubevirtv1.VirtualMachineInstanceMigration{}
	default:
		return object, nil
	}
	u.SetManagedFields(nil)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	return typed, nil
}
