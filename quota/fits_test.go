package quota_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

func TestFits(t *testing.T) {
	require.NoError(t, quota.Decision{}.Fits(listOf(cpu, "1")), "nothing decided")
	available := listOf(cpu, "2", memory, "1536Mi", corev1.ResourcePods, "0", requestsMemory, "12345678901234567890")
	for _, row := range []struct {
		name                           string
		request                        corev1.ResourceList
		resource, requested, remaining string // of the error; none if empty
	}{
		{name: "nil"},
		{name: "empty", request: corev1.ResourceList{}},
		{name: "less", request: listOf(cpu, "1999m", memory, "1Gi")},
		{name: "all of it", request: listOf(cpu, "2000m", memory, "1.5Gi", requestsMemory, "12345678901234567890")},
		{name: "zero of what is used up", request: listOf(corev1.ResourcePods, "0")},
		{name: "negative", request: listOf(corev1.ResourcePods, "-1", cpu, "-100E")},
		{name: "without a limit", request: listOf(corev1.ResourceRequestsCPU, "100E")},
		{name: "a millicore too many", request: listOf(cpu, "2001m", memory, "1Gi"), resource: "limits.cpu", requested: "2001m", remaining: "2"},
		{name: "a byte too many", request: listOf(memory, "1610612737"), resource: "limits.memory", requested: "1610612737", remaining: "1536Mi"},
		{name: "beyond int64", request: listOf(requestsMemory, "12345678901234567891"), resource: "requests.memory", requested: "12345678901234567891", remaining: "12345678901234567890"},
		{name: "far beyond int64", request: listOf(cpu, "100E"), resource: "limits.cpu", requested: "100E", remaining: "2"},
		{name: "the first by name", request: listOf(corev1.ResourcePods, "1", memory, "2Gi", requestsMemory, "100E", cpu, "1"), resource: "limits.memory", requested: "2Gi", remaining: "1536Mi"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 8 { // maps have no order
				err := quota.Decision{Available: available}.Fits(row.request)
				if row.resource == "" {
					require.NoError(t, err)
					continue
				}
				var exceeded *quota.ExceededError
				require.ErrorAs(t, fmt.Errorf("admission: %w", err), &exceeded)
				require.Equal(t, corev1.ResourceName(row.resource), exceeded.Resource)
				require.Equal(t, row.requested, textOf(exceeded.Requested))
				require.Equal(t, row.remaining, textOf(exceeded.Available))
				require.ErrorContains(t, err, fmt.Sprintf("%s: requested %s, available %s", row.resource, row.requested, row.remaining))
			}
		})
	}
}

// An error keeps what it says, whatever becomes of the decision and the request, and
// to say it changes nothing.
func TestExceededErrorIsItsOwn(t *testing.T) {
	d := quota.Decision{Available: listOf(cpu, "12345678901234567890")}
	request := listOf(cpu, "12345678901234567891")
	err := d.Fits(request)
	var exceeded *quota.ExceededError
	require.ErrorAs(t, err, &exceeded)
	before := *exceeded
	said := err.Error()
	require.Equal(t, before, *exceeded) // the spelling that a Quantity caches included

	spoil(d.Available)
	spoil(request)
	require.Equal(t, "12345678901234567891", textOf(exceeded.Requested))
	require.Equal(t, "12345678901234567890", textOf(exceeded.Available))
	require.EqualError(t, err, said)
}
