package quota_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// The cost of Effective, and what it is measured by: the floor, which is the same
// maps walked once, summing int64. Machines are noisy, so the ratio is taken inside one run:
//
//	go test ./quota -run '^$' -bench OverFloor
//
// Its x-floor is how many times as long Effective takes.

var benchmarkSizes = []int{1, 10, 100, 1000}

// fleet returns n migrations of VMs with 1 CPU and about 5 GiB each, every second
// of them charged, in a namespace with limits on so many resources.
func fleet(n, resources int, sorted bool) (static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList) {
	static, used = corev1.ResourceList{}, corev1.ResourceList{}
	for _, name := range resourceNames[:resources] {
		static[name], used[name] = resource.MustParse("6400Gi"), resource.MustParse("6000Gi")
	}
	for i := range n {
		surge := corev1.ResourceList{}
		for _, name := range resourceNames[:resources] {
			switch name {
			case corev1.ResourceLimitsCPU, corev1.ResourceRequestsCPU:
				surge[name] = *resource.NewMilliQuantity(int64(1015+i), resource.DecimalSI)
			case corev1.ResourceLimitsMemory, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage:
				surge[name] = *resource.NewQuantity(int64(5682461313+i), resource.BinarySI)
			default:
				surge[name] = *resource.NewQuantity(1, resource.DecimalSI)
			}
		}
		prefix := uint32(i)
		if !sorted {
			prefix *= 2654435761 // spreads the numbers: consecutive ones are far apart
		}
		migrations = append(migrations, quota.Migration{
			UID:     types.UID(fmt.Sprintf("%08x-c202-4ea0-a619-8e27b239d293", prefix)),
			State:   quota.Blocked + quota.State(i%2),
			Surge:   surge,
			Created: metav1.Unix(1700000000+int64(i%7), 0),
		})
	}
	return static, migrations, used
}

// floor walks every map once and sums int64, in thousandths. It is the least that
// anybody has to do who decides on these migrations and reads all that they say.
func floor(static corev1.ResourceList, migrations []quota.Migration) map[corev1.ResourceName]int64 {
	sums := make(map[corev1.ResourceName]int64, len(static))
	for i := range migrations {
		for name, q := range migrations[i].Surge {
			if _, limited := static[name]; limited {
				sums[name] += thousandths(q)
			}
		}
	}
	return sums
}

// floorByKey looks up what static limits instead. It is less work still, because
// ranging over a small map costs more than a few look-ups in it.
func floorByKey(static corev1.ResourceList, migrations []quota.Migration) map[corev1.ResourceName]int64 {
	names := make([]corev1.ResourceName, 0, len(static))
	for name := range static {
		names = append(names, name)
	}
	totals := make([]int64, len(names))
	for i := range migrations {
		surge := migrations[i].Surge
		for j, name := range names {
			if q, ok := surge[name]; ok {
				totals[j] += thousandths(q)
			}
		}
	}
	sums := make(map[corev1.ResourceName]int64, len(static))
	for j, name := range names {
		sums[name] = totals[j]
	}
	return sums
}

// thousandths is the quickest way to an int64 that is right for cores and bytes.
func thousandths(q resource.Quantity) int64 {
	if value, ok := q.AsInt64(); ok {
		return 1000 * value
	}
	return q.MilliValue() //nolint:forbidigo // the floor need not be right for 100E
}

// byFleet runs a benchmark for every size.
func byFleet(b *testing.B, run func(b *testing.B, static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList)) {
	for _, resources := range []int{2, 8} {
		for _, n := range benchmarkSizes {
			for _, order := range []string{"sorted", "unsorted"} {
				b.Run(fmt.Sprintf("resources=%d/migrations=%d/%s", resources, n, order), func(b *testing.B) {
					static, migrations, used := fleet(n, resources, order == "sorted")
					run(b, static, migrations, used)
				})
			}
		}
	}
}

func BenchmarkEffective(b *testing.B) {
	byFleet(b, func(b *testing.B, static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList) {
		b.ReportAllocs()
		for b.Loop() {
			quota.Effective(static, migrations, used)
		}
	})
}

// BenchmarkDecideBudget: a budget for half of those that wait, so that all of them
// have to be put in order.
func BenchmarkDecideBudget(b *testing.B) {
	byFleet(b, func(b *testing.B, static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList) {
		policy := quota.Policy{Budget: corev1.ResourceList{}}
		for name, total := range floor(static, migrations) {
			policy.Budget[name] = *resource.NewMilliQuantity(total*3/4, resource.DecimalSI)
		}
		b.ReportAllocs()
		for b.Loop() {
			policy.Decide(static, migrations, used)
		}
	})
}

// BenchmarkEffectiveOverFloor times Effective and both floors by turns, and compares
// the quickest turn of each, which is the one that the machine disturbed least.
func BenchmarkEffectiveOverFloor(b *testing.B) {
	byFleet(b, func(b *testing.B, static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList) {
		rounds := 1 + 200/len(migrations)
		turn := func(run func()) time.Duration {
			start := time.Now()
			for range rounds {
				run()
			}
			return time.Since(start)
		}
		effective, walked, keyed := time.Hour, time.Hour, time.Hour
		for b.Loop() {
			walked = min(walked, turn(func() { floor(static, migrations) }))
			effective = min(effective, turn(func() { quota.Effective(static, migrations, used) }))
			keyed = min(keyed, turn(func() { floorByKey(static, migrations) }))
		}
		b.ReportMetric(float64(effective)/float64(walked), "x-floor")
		b.ReportMetric(float64(effective)/float64(keyed), "x-floor-by-key")
		b.ReportMetric(0, "ns/op")
	})
}

// What a decision costs in memory does not depend on how many migrations there are.
func TestEffectiveAllocations(t *testing.T) {
	for _, order := range []string{"sorted", "unsorted"} {
		allocations := func(n int) float64 {
			static, migrations, used := fleet(n, 2, order == "sorted")
			return testing.AllocsPerRun(20, func() { quota.Effective(static, migrations, used) })
		}
		atHundred, atThousand := allocations(100), allocations(1000)
		require.LessOrEqual(t, atHundred, 8.0, order)
		require.InDelta(t, atHundred, atThousand, 0, order)
	}
}

// The benchmarks are about something: the floors agree with the rule.
func TestFloorIsOfTheRule(t *testing.T) {
	static, migrations, used := fleet(100, 8, false)
	sums := floor(static, migrations)
	require.Equal(t, sums, floorByKey(static, migrations))
	hard := quota.Effective(static, migrations, used)
	for name, sum := range sums {
		raise := minus(ratOf(hard[name]), ratOf(static[name]))
		require.Zero(t, raise.Cmp(ratOf(*resource.NewMilliQuantity(sum, resource.DecimalSI))), name)
	}
}
