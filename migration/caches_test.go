package migration_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

func TestFromIndexer(t *testing.T) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	mine := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "mine"}}
	require.NoError(t, indexer.Add(mine))
	require.NoError(t, indexer.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "theirs"}}))

	pods, err := migration.FromIndexer[corev1.Pod](indexer)(t.Context(), "tenant")
	require.NoError(t, err)
	require.Equal(t, []*corev1.Pod{mine}, pods)

	_, err = migration.FromIndexer[corev1.LimitRange](indexer)(t.Context(), "tenant")
	require.EqualError(t, err, "the cache holds a *v1.Pod, not a *v1.LimitRange")

	unindexed := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	_, err = migration.FromIndexer[corev1.Pod](unindexed)(t.Context(), "tenant")
	require.Error(t, err)
}

func TestTyped(t *testing.T) {
	r := recordingOf(t, "basic")
	r.until(2 * time.Second)
	vmim := r.cache.Snapshot(r.namespace).Migrations[0].DeepCopy()
	vmim.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "virt-controller"}}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(vmim)
	require.NoError(t, err)
	typed, err := migration.Typed(&unstructured.Unstructured{Object: raw})
	require.NoError(t, err)
	vmim.ManagedFields = nil
	require.Equal(t, vmim, typed)

	pod := &corev1.Pod{}
	same, err := migration.Typed(pod)
	require.NoError(t, err)
	require.Same(t, pod, same)

	bad := &unstructured.Unstructured{Object: map[string]any{
		"kind": "VirtualMachineInstance", "metadata": map[string]any{"namespace": "tenant", "name": "vm"}, "spec": "nonsense",
	}}
	_, err = migration.Typed(bad)
	require.ErrorContains(t, err, "VirtualMachineInstance tenant/vm: ")
}

func TestFromStore(t *testing.T) {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	tenant := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}}
	require.NoError(t, store.Add(tenant))
	require.NoError(t, store.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}))
	get := migration.FromStore(store)
	got, err := get(t.Context(), "tenant")
	require.NoError(t, err)
	require.Same(t, tenant, got)
	got, err = get(t.Context(), "gone")
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = get(t.Context(), "node")
	require.EqualError(t, err, "the cache holds a *v1.Node, not a *v1.Namespace")
}

// The ratio of the limits that KubeVirt sets stands on the namespace.
func TestSnapshotReadsTheRatioOfTheNamespace(t *testing.T) {
	r := recordingOf(t, "autolimits")
	var vmim time.Duration
	for _, e := range r.events {
		if _, ok := e.Object.(*kubevirtv1.VirtualMachineInstanceMigration); ok {
			vmim = e.At
			break
		}
	}
	r.until(vmim)
	caches := r.caches()
	caches.Namespace = func(_ context.Context, name string) (*corev1.Namespace, error) {
		require.Equal(t, r.namespace, name)
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: "4"}}}, nil
	}
	memoryLimit := func(caches migration.Caches) string {
		s, err := caches.Snapshot(t.Context(), r.namespace)
		require.NoError(t, err)
		inFlight := migration.InFlight(s)
		require.Len(t, inFlight, 1)
		return inFlight[0].Surge.Name(corev1.ResourceLimitsMemory, "").String()
	}
	require.NotEqual(t, memoryLimit(r.caches()), memoryLimit(caches))

	down := errors.New("not synced")
	caches.Namespace = func(context.Context, string) (*corev1.Namespace, error) { return nil, down }
	_, err := caches.Snapshot(t.Context(), r.namespace)
	require.ErrorIs(t, err, down)
	require.ErrorContains(t, err, "get the Namespace")
}
