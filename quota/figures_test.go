package quota_test

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
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
		name         string
		static, used corev1.ResourceList
		migrations   []quota.Migration
		policy       quota.Policy
		want         quota.Decision
	}{
		{
			name:   "no migration",
			static: listOf(cpu, "1000m", memory, "4952Mi"),
			used:   listOf(cpu, "1000m", memory, "4952Mi"),
			want: quota.Decision{
				Hard:      listOf(cpu, "1000m", memory, "4952Mi"),
				Regular:   listOf(cpu, "1", memory, "4952Mi"),
				Temporary: listOf(cpu, "0", memory, 0),
				Available: listOf(cpu, "0", memory, 0),
				Surge:     listOf(cpu, "0", memory, 0),
				Need:      listOf(cpu, "0", memory, 0),
			},
		},
		{
			name:       "exact fit",
			static:     listOf(cpu, "1000m", memory, "1238Mi"),
			used:       listOf(cpu, "1000m", memory, "1267028Ki"),
			migrations: []quota.Migration{blocked("a", cpu, "1000m", memory, "1267028Ki")},
			want: quota.Decision{
				Hard:      listOf(cpu, "2", memory, 2595573760),
				Regular:   listOf(cpu, "1", memory, "1267028Ki"),
				Temporary: listOf(cpu, "0", memory, 0),
				Available: listOf(cpu, "0", memory, "684Ki"),
				Surge:     listOf(cpu, "1", memory, "1267028Ki"),
				Need:      listOf(cpu, "1", memory, "1267028Ki"),
				Granted:   []types.UID{"a"},
			},
		},
		{
			name:       "three of 16Gi in 64Gi",
			static:     listOf(memory, "64Gi"),
			used:       listOf(memory, "52216983555"),
			migrations: []quota.Migration{blocked("a", memory, "17405661185")},
			want: quota.Decision{
				Hard:      listOf(memory, 86125137921),
				Regular:   listOf(memory, 52216983555),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, 16502493181),
				Surge:     listOf(memory, 17405661185),
				Need:      listOf(memory, 17405661185),
				Granted:   []types.UID{"a"},
			},
		},
		{
			name:       "drain, the first charged and the second blocked",
			static:     listOf(cpu, "30", memory, "60Gi"),
			used:       listOf(cpu, "28405m", memory, "62820279552"),
			migrations: []quota.Migration{charged("a", cpu, "4015m", memory, "8940039936"), blocked("b", cpu, "4015m", memory, "8940039936")},
			want: quota.Decision{
				Hard:      listOf(cpu, "38030m", memory, 82304589312),
				Regular:   listOf(cpu, "24390m", memory, 53880239616),
				Temporary: listOf(cpu, "4015m", memory, 8940039936),
				Available: listOf(cpu, "5610m", memory, 10544269824),
				Surge:     listOf(cpu, "8030m", memory, 17880079872),
				Need:      listOf(cpu, "4015m", memory, 8940039936),
				Granted:   []types.UID{"a", "b"},
			},
		},
		{
			name:       "drain, the first over and the second charged",
			static:     listOf(cpu, "30", memory, "60Gi"),
			used:       listOf(cpu, "28405m", memory, "62820279552"),
			migrations: []quota.Migration{charged("b", cpu, "4015m", memory, "8940039936")},
			want: quota.Decision{
				Hard:      listOf(cpu, "34015m", memory, 73364549376),
				Regular:   listOf(cpu, "24390m", memory, 53880239616),
				Temporary: listOf(cpu, "4015m", memory, 8940039936),
				Available: listOf(cpu, "5610m", memory, 10544269824),
				Surge:     listOf(cpu, "4015m", memory, 8940039936),
				Need:      listOf(cpu, "0", memory, 0),
				Granted:   []types.UID{"b"},
			},
		},
		{
			name:   "drain, both over",
			static: listOf(cpu, "30", memory, "60Gi"),
			used:   listOf(cpu, "24390m", memory, "53880239616"),
			want: quota.Decision{
				Hard:      listOf(cpu, "30", memory, "60Gi"),
				Regular:   listOf(cpu, "24390m", memory, 53880239616),
				Temporary: listOf(cpu, "0", memory, 0),
				Available: listOf(cpu, "5610m", memory, 10544269824),
				Surge:     listOf(cpu, "0", memory, 0),
				Need:      listOf(cpu, "0", memory, 0),
			},
		},
		{
			name:       "requests too",
			static:     listOf(requestsMemory, "4200Mi"),
			used:       listOf(requestsMemory, "3667280Ki"),
			migrations: []quota.Migration{charged("a", requestsMemory, "916820Ki"), blocked("b", requestsMemory, "916820Ki")},
			want: quota.Decision{
				Hard:      listOf(requestsMemory, "6134440Ki"),
				Regular:   listOf(requestsMemory, "2750460Ki"),
				Temporary: listOf(requestsMemory, "916820Ki"),
				Available: listOf(requestsMemory, "1550340Ki"),
				Surge:     listOf(requestsMemory, "1833640Ki"),
				Need:      listOf(requestsMemory, "916820Ki"),
				Granted:   []types.UID{"a", "b"},
			},
		},
		{
			name:       "overhead ratio raised under running VMs, the second to migrate",
			static:     listOf(memory, "5000Mi"),
			used:       listOf(memory, "5682461313"),
			migrations: []quota.Migration{blocked("b", memory, "5682461313")},
			want: quota.Decision{
				Hard:      listOf(memory, 11364922626),
				Regular:   listOf(memory, 5682461313),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, 0),
				Surge:     listOf(memory, 5682461313),
				Need:      listOf(memory, 5682461313),
				Granted:   []types.UID{"b"},
			},
		},
		{
			name:       "overhead ratio raised under running VMs, strict",
			static:     listOf(memory, "5000Mi"),
			used:       listOf(memory, "5682461313"),
			migrations: []quota.Migration{blocked("b", memory, "5682461313")},
			policy:     quota.Policy{Strict: true},
			want: quota.Decision{
				Hard:      listOf(memory, "5000Mi"),
				Regular:   listOf(memory, 5682461313),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, 0),
				Surge:     listOf(memory, 0),
				Need:      listOf(memory, 0),
				Deferred:  []quota.Deferral{{UID: "b", Reason: quota.RegularAboveStatic, Missing: listOf(memory, 439581313)}},
			},
		},
		{
			name:       "what was taken does not lift",
			static:     listOf(memory, "5000Mi"),
			used:       listOf(memory, "9000Mi"),
			migrations: []quota.Migration{charged("a", memory, "1000Mi"), blocked("b", memory, "1000Mi"), blocked("c", cpu, "1")},
			policy:     quota.Policy{Lift: listOf(memory, "6000Mi", cpu, "0")},
			want: quota.Decision{
				Hard:      listOf(memory, "7000Mi"),
				Regular:   listOf(memory, "8000Mi"),
				Temporary: listOf(memory, "1000Mi"),
				Available: listOf(memory, 0),
				Surge:     listOf(memory, "1000Mi"),
				Need:      listOf(memory, 0),
				Granted:   []types.UID{"a", "c"},
				Deferred:  []quota.Deferral{{UID: "b", Reason: quota.RegularAboveStatic, Missing: listOf(memory, "2000Mi")}},
			},
		},
		{
			name:       "a lift below static is none",
			static:     listOf(memory, "5000Mi"),
			used:       listOf(memory, "4000Mi"),
			migrations: []quota.Migration{blocked("a", memory, "2000Mi")},
			policy:     quota.Policy{Lift: listOf(memory, "1")},
			want: quota.Decision{
				Hard:      listOf(memory, "7000Mi"),
				Regular:   listOf(memory, "4000Mi"),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, "1000Mi"),
				Surge:     listOf(memory, "2000Mi"),
				Need:      listOf(memory, "2000Mi"),
				Granted:   []types.UID{"a"},
			},
		},
		{
			name:       "two over static at once",
			static:     listOf(memory, "32100Mi"),
			used:       listOf(memory, "39777229191"),
			migrations: []quota.Migration{blocked("a", memory, "5682461313"), blocked("b", memory, "5682461313")},
			want: quota.Decision{
				Hard:      listOf(memory, 51142151817),
				Regular:   listOf(memory, 39777229191),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, 0),
				Surge:     listOf(memory, 11364922626),
				Need:      listOf(memory, 11364922626),
				Granted:   []types.UID{"a", "b"},
			},
		},
		{
			name:       "two over static at once, in the other order",
			static:     listOf(memory, "32100Mi"),
			used:       listOf(memory, "39777229191"),
			migrations: []quota.Migration{blocked("b", memory, "5682461313"), blocked("a", memory, "5682461313")},
			want: quota.Decision{
				Hard:      listOf(memory, 51142151817),
				Regular:   listOf(memory, 39777229191),
				Temporary: listOf(memory, 0),
				Available: listOf(memory, 0),
				Surge:     listOf(memory, 11364922626),
				Need:      listOf(memory, 11364922626),
				Granted:   []types.UID{"a", "b"},
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 3 {
				got := row.policy.Decide(row.static, row.migrations, row.used)
				require.Empty(t, gocmp.Diff(row.want, got, exactly))
				if !row.policy.Strict && row.policy.Lift == nil {
					hard := quota.Effective(row.static, row.migrations, row.used)
					require.Empty(t, gocmp.Diff(row.want.Hard, hard, exactly))
				}
			}
		})
	}
}
