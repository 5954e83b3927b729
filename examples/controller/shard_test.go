package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
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
