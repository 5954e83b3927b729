package quota_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

func TestFits(t *testing.T) {
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
		{
			name: "a millicore too many", request: listOf(cpu, "2001m", memory, "1Gi"),
			resource: "limits.cpu", requested: "2001m", remaining: "2",
		},
		{
			name: "a byte too many", request: listOf(memory, "1610612737"),
			resource: "limits.memory", requested: "1610612737", remaining: "1536Mi",
		},
		{
			name: "beyond int64", request: listOf(requestsMemory, "12345678901234567891"),
			resource: "requests.memory", requested: "12345678901234567891", remaining: "12345678901234567890",
		},
		{
			name: "far beyond int64", request: listOf(cpu, "100E"),
			resource: "limits.cpu", requested: "100E", remaining: "2",
		},
		{
			name: "the first by name", request: listOf(corev1.ResourcePods, "1", memory, "2Gi", requestsMemory, "100E", cpu, "1"),
			resource: "limits.memory", requested: "2Gi", remaining: "1536Mi",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := quota.Decision{Available: available}.Fits(row.request)
			if row.resource == "" {
				require.NoError(t, err)
				return
			}
			var exceeded *quota.ExceededError
			require.ErrorAs(t, fmt.Errorf("admission: %w", err), &exceeded)
			require.Equal(t, corev1.ResourceName(row.resource), exceeded.Resource)
			require.Equal(t, row.requested, textOf(exceeded.Requested))
			require.Equal(t, row.remaining, textOf(exceeded.Available))
			for _, word := range []string{row.resource, row.requested, row.remaining} {
				require.ErrorContains(t, err, word)
			}
		})
	}
}

func TestFitsNothingDecided(t *testing.T) {
	require.NoError(t, quota.Decision{}.Fits(listOf(cpu, "1")))
}

// The headroom of a migration is not there for others to take.
func TestFitsLeavesHeadroomAlone(t *testing.T) {
	d := quota.Policy{}.Decide(
		listOf(memory, "64Gi"), []quota.Migration{blocked("a", memory, "17405661185")}, listOf(memory, "52216983555"))
	require.NoError(t, d.Fits(listOf(memory, "16502493181")))
	require.Error(t, d.Fits(listOf(memory, "16502493182")))
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

func TestFitsIsWhatIsAvailable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		request := roll.list(s.regime, 2, s.names)
		d := s.decide()
		var want corev1.ResourceName
		for _, name := range sortedNames(request) {
			asked := ratOf(request[name])
			available, limited := d.Available[name]
			if limited && asked.Sign() > 0 && asked.Cmp(ratOf(available)) > 0 {
				want = name
				break
			}
		}
		var got quota.ExceededError
		if exceeded := (*quota.ExceededError)(nil); errors.As(d.Fits(request), &exceeded) {
			got = *exceeded
		}
		if got.Resource != want {
			t.Fatalf("request %s does not fit by %q, want %q, of\n%s", listString(request), got.Resource, want, s)
		}
		if want == "" {
			return
		}
		requireSameList(t,
			corev1.ResourceList{"requested": request[want], "available": d.Available[want]},
			corev1.ResourceList{"requested": got.Requested, "available": got.Available}, s)
	})
}
