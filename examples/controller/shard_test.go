package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Each namespace belongs to one shard, and the shards are about as large as each other.
func TestShards(t *testing.T) {
	const namespaces = 10000
	for _, count := range []uint32{1, 2, 3, 8} {
		sizes := make([]int, count)
		for i := range namespaces {
			owners := 0
			for index := range count {
				if (shard{index, count}).has(fmt.Sprintf("tenant-%d", i)) {
					sizes[index]++
					owners++
				}
			}
			require.Equal(t, 1, owners)
		}
		for _, size := range sizes {
			require.InDelta(t, namespaces/int(count), size, namespaces/20, "%v", sizes)
		}
	}
	require.Equal(t, "headroom", shard{0, 1}.lease("headroom"))
	require.Equal(t, "headroom-2", shard{2, 3}.lease("headroom"))
}

// Caches keep what belongs to other shards as a name only.
func TestSlim(t *testing.T) {
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "tenant", Name: "p", UID: "u", ResourceVersion: "7",
				Labels: map[string]string{"kubevirt.io": "virt-launcher"}, ManagedFields: []metav1.ManagedFieldsEntry{{}},
			},
			Spec: corev1.PodSpec{NodeName: "n"},
		}
	}
	empty := func() any { return &corev1.Pod{} }
	whole := pod()
	whole.ManagedFields = nil
	mine, other := shard{0, 2}, shard{1, 2}
	if !mine.has("tenant") {
		mine, other = other, mine
	}

	got, err := mine.slim(empty, nil)(pod())
	require.NoError(t, err)
	require.Equal(t, whole, got)

	got, err = other.slim(empty, nil)(pod())
	require.NoError(t, err)
	require.Equal(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "p", UID: "u", ResourceVersion: "7"}}, got)

	tombstone := cache.DeletedFinalStateUnknown{Key: "tenant/p"}
	got, err = other.slim(empty, nil)(tombstone)
	require.NoError(t, err)
	require.Equal(t, tombstone, got)
}
