package quota_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

const (
	cpu            = corev1.ResourceLimitsCPU
	memory         = corev1.ResourceLimitsMemory
	requestsMemory = corev1.ResourceRequestsMemory
)

// listOf reads name, amount, name, amount, ...; an amount is a string as in YAML,
// or a number of bytes in a BinarySI quantity.
func listOf(pairs ...any) corev1.ResourceList {
	list := corev1.ResourceList{}
	var name corev1.ResourceName
	for _, part := range pairs {
		switch part := part.(type) {
		case corev1.ResourceName:
			name = part
		case string:
			list[name] = resource.MustParse(part)
		case int:
			list[name] = *resource.NewQuantity(int64(part), resource.BinarySI)
		}
	}
	return list
}

func queued(uid types.UID, pairs ...any) quota.Migration {
	return quota.Migration{UID: uid, State: quota.Queued, Surge: listOf(pairs...)}
}

func blocked(uid types.UID, pairs ...any) quota.Migration {
	return quota.Migration{UID: uid, State: quota.Blocked, Surge: listOf(pairs...)}
}

func charged(uid types.UID, pairs ...any) quota.Migration {
	return quota.Migration{UID: uid, State: quota.Charged, Surge: listOf(pairs...)}
}

// Figures of real clusters, worked out by hand.
func TestWorkedFigures(t *testing.T) {
	for _, row := range []struct {
		name, static, used         string
		policy                     quota.Policy
		migrations                 []quota.Migration
		hard, temporary, available string
		granted, deferred          string
	}{
		{"no migration", "limits.cpu=1000m limits.memory=4952Mi", "limits.cpu=1000m limits.memory=4952Mi", none, nil, "limits.cpu=1000m limits.memory=4952Mi", "limits.cpu=0 limits.memory=0", "limits.cpu=0 limits.memory=0", "", ""},
		{
			"exact fit", "limits.cpu=1000m limits.memory=1238Mi", "limits.cpu=1000m limits.memory=1267028Ki", none,
			[]quota.Migration{blocked("a", cpu, "1000m", memory, "1267028Ki")},
			"limits.cpu=2 limits.memory=2595573760", "limits.cpu=0 limits.memory=0", "limits.cpu=0 limits.memory=684Ki", "a", "",
		},
		{"three of 16Gi in 64Gi", "limits.memory=64Gi", "limits.memory=52216983555", none, []quota.Migration{blocked("a", memory, "17405661185")}, "limits.memory=86125137921", "limits.memory=0", "limits.memory=16502493181", "a", ""},
		{
			"drain, the first charged and the second blocked", "limits.cpu=30 limits.memory=60Gi", "limits.cpu=28405m limits.memory=62820279552", none,
			[]quota.Migration{charged("a", cpu, "4015m", memory, "8940039936"), blocked("b", cpu, "4015m", memory, "8940039936")},
			"limits.cpu=38030m limits.memory=82304589312", "limits.cpu=4015m limits.memory=8940039936", "limits.cpu=5610m limits.memory=10544269824", "a b", "",
		},
		{
			"drain, the first over and the second charged", "limits.cpu=30 limits.memory=60Gi", "limits.cpu=28405m limits.memory=62820279552", none,
			[]quota.Migration{charged("b", cpu, "4015m", memory, "8940039936")},
			"limits.cpu=34015m limits.memory=73364549376", "limits.cpu=4015m limits.memory=8940039936", "limits.cpu=5610m limits.memory=10544269824", "b", "",
		},
		{"drain, both over", "limits.cpu=30 limits.memory=60Gi", "limits.cpu=24390m limits.memory=53880239616", none, nil, "limits.cpu=30 limits.memory=60Gi", "limits.cpu=0 limits.memory=0", "limits.cpu=5610m limits.memory=10544269824", "", ""},
		{
			"requests too", "requests.memory=4200Mi", "requests.memory=3667280Ki", none,
			[]quota.Migration{charged("a", requestsMemory, "916820Ki"), blocked("b", requestsMemory, "916820Ki")},
			"requests.memory=6134440Ki", "requests.memory=916820Ki", "requests.memory=1550340Ki", "a b", "",
		},
		{
			"overhead ratio raised under running VMs, the second to migrate", "limits.memory=5000Mi", "limits.memory=5682461313", none,
			[]quota.Migration{blocked("b", memory, "5682461313")},
			"limits.memory=11364922626", "limits.memory=0", "limits.memory=0", "b", "",
		},
		{
			"overhead ratio raised under running VMs, strict", "limits.memory=5000Mi", "limits.memory=5682461313",
			quota.Policy{Strict: true},
			[]quota.Migration{blocked("b", memory, "5682461313")},
			"limits.memory=5000Mi", "limits.memory=0", "limits.memory=0", "", "b RegularAboveStatic limits.memory=439581313",
		},
		{
			"what was taken does not lift", "limits.memory=5000Mi", "limits.memory=9000Mi",
			quota.Policy{Lift: listOf(memory, "6000Mi", cpu, "0")},
			[]quota.Migration{charged("a", memory, "1000Mi"), blocked("b", memory, "1000Mi"), blocked("c", cpu, "1")},
			"limits.memory=7000Mi", "limits.memory=1000Mi", "limits.memory=0", "a c", "b RegularAboveStatic limits.memory=2000Mi",
		},
		{"a lift below static is none", "limits.memory=5000Mi", "limits.memory=4000Mi", quota.Policy{Lift: listOf(memory, "1")}, []quota.Migration{blocked("a", memory, "2000Mi")}, "limits.memory=7000Mi", "limits.memory=0", "limits.memory=1000Mi", "a", ""},
		{
			"two over static at once", "limits.memory=32100Mi", "limits.memory=39777229191", none,
			[]quota.Migration{blocked("a", memory, "5682461313"), blocked("b", memory, "5682461313")},
			"limits.memory=51142151817", "limits.memory=0", "limits.memory=0", "a b", "",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			static, used := amounts(row.static), amounts(row.used)
			for range 2 {
				d := row.policy.Decide(static, row.migrations, used)
				requireDecision(t, d, row.hard, row.granted, row.deferred)
				requireAmounts(t, row.temporary, d.Temporary)
				requireAmounts(t, row.available, d.Available)
				slices.Reverse(row.migrations)
			}
		})
	}
}
