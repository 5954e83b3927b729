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
func TestSnapshotReadsTheNamespace(t *testing.T) {
	tenant, down := &corev1.Namespace{}, errors.New("not synced")
	caches := migration.Caches{Namespace: func(_ context.Context, name string) (*corev1.Namespace, error) {
		require.Equal(t, "tenant", name)
		return tenant, nil
	}}
	s, err := caches.Snapshot(t.Context(), "tenant")
	require.NoError(t, err)
	require.Same(t, tenant, s.Namespace)

	caches.Namespace = func(context.Context, string) (*corev1.Namespace, error) { return nil, down }
	_, err = caches.Snapshot(t.Context(), "tenant")
	require.ErrorIs(t, err, down)
	require.ErrorContains(t, err, "get the Namespace")
}
