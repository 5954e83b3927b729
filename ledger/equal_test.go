package ledger_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

var moment = time.Date(2026, time.August, 3, 14, 5, 6, 0, time.UTC)

// TestEqualLooksAtEveryField changes one field after the other, those included that
// are added later.
func TestEqualLooksAtEveryField(t *testing.T) {
	base := quota.Migration{Shares: []quota.Share{{}}}
	var fields []string
	look := func(part func(m *quota.Migration) reflect.Value) {
		for i := range part(&base).NumField() {
			changed := base.DeepCopy()
			value, name := part(&changed).Field(i), part(&changed).Type().Field(i).Name
			switch v := value.Addr().Interface().(type) {
			case *corev1.ResourceList:
				*v = corev1.ResourceList{"pods": resource.MustParse("1")}
			case *metav1.Time:
				*v = metav1.NewTime(moment)
			case *[]quota.Share:
				*v = append(*v, quota.Share{})
			case *quota.Traits:
				continue // its fields come below
			default:
				switch value.Kind() {
				case reflect.String:
					value.SetString("x")
				case reflect.Bool:
					value.SetBool(true)
				case reflect.Int, reflect.Int32:
					value.SetInt(1)
				default:
					require.Fail(t, "a field of a new kind", name)
				}
			}
			require.False(t, ledger.Equal([]quota.Migration{base}, []quota.Migration{changed}), name)
			require.True(t, ledger.Equal([]quota.Migration{changed}, []quota.Migration{changed.DeepCopy()}), name)
			require.False(t, ledger.Equal([]quota.Migration{base}, ledger.Canonical([]quota.Migration{changed})), "lost in Canonical: %s", name)
			fields = append(fields, name)
		}
	}
	look(func(m *quota.Migration) reflect.Value { return reflect.ValueOf(m).Elem() })
	look(func(m *quota.Migration) reflect.Value { return reflect.ValueOf(&m.Shares[0]).Elem() })
	look(func(m *quota.Migration) reflect.Value { return reflect.ValueOf(&m.Shares[0].Traits).Elem() })
	require.Subset(t, fields, []string{"UID", "VMI", "State", "Held", "Shares", "Terminating"})
}

func TestEqual(t *testing.T) {
	surge := func(s string) []quota.Migration {
		return []quota.Migration{{Surge: corev1.ResourceList{"limits.cpu": resource.MustParse(s)}}}
	}
	created := func(at time.Time) []quota.Migration { return []quota.Migration{{Created: metav1.NewTime(at)}} }
	one, two := quota.Migration{UID: "1"}, quota.Migration{UID: "2"}
	advanced := quota.Migration{UID: "1", State: quota.Charged}
	empty := corev1.ResourceList{}
	for name, c := range map[string]struct {
		a, b []quota.Migration
		want bool
	}{
		"none":                         {nil, []quota.Migration{}, true},
		"one and none":                 {[]quota.Migration{one}, nil, false},
		"another order":                {[]quota.Migration{one, two}, []quota.Migration{two, one}, true},
		"one of two":                   {[]quota.Migration{one, two}, []quota.Migration{two}, false},
		"listed twice":                 {[]quota.Migration{one, two, one}, []quota.Migration{one, two}, true},
		"a duplicate that counts":      {[]quota.Migration{one, advanced}, []quota.Migration{one}, false},
		"a duplicate that does not":    {[]quota.Migration{one, advanced}, []quota.Migration{advanced}, true},
		"1 and 1000m":                  {surge("1"), surge("1000m"), true},
		"1 and 1001m":                  {surge("1"), surge("1001m"), false},
		"100E and more":                {surge("100E"), surge("100000000000000000001"), false},
		"100E and 1e20":                {surge("100E"), surge("1e20"), true},
		"a part of a second":           {created(moment), created(moment.Add(999 * time.Millisecond)), true},
		"a second":                     {created(moment), created(moment.Add(time.Second)), false},
		"another zone":                 {created(moment), created(moment.In(time.FixedZone("", 3600))), true},
		"nil and empty Surge":          {[]quota.Migration{{Surge: nil}}, []quota.Migration{{Surge: empty}}, true},
		"nil and empty Growth":         {[]quota.Migration{{Growth: nil}}, []quota.Migration{{Growth: empty}}, true},
		"nil and empty Held":           {[]quota.Migration{{Held: nil}}, []quota.Migration{{Held: empty}}, false},
		"nil and empty Shares":         {[]quota.Migration{{Shares: nil}}, []quota.Migration{{Shares: []quota.Share{}}}, false},
		"nil and empty Held of shares": {[]quota.Migration{{Shares: []quota.Share{{Held: nil}}}}, []quota.Migration{{Shares: []quota.Share{{Held: empty}}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ledger.Equal(c.a, c.b))
			require.Equal(t, c.want, ledger.Equal(c.b, c.a))
		})
	}
}

// TestDuplicatesCountAsInQuota holds that a ledger never changes what the rule makes
// of duplicates.
func TestDuplicatesCountAsInQuota(t *testing.T) {
	static := corev1.ResourceList{"limits.memory": resource.MustParse("10"), "pods": resource.MustParse("10")}
	rapid.Check(t, func(t *rapid.T) {
		migrations := duplicates().Draw(t, "migrations")
		used := lists().Draw(t, "used")
		policy := quota.Policy{Budget: lists().Draw(t, "budget"), Strict: rapid.Bool().Draw(t, "strict"), Eager: rapid.Bool().Draw(t, "eager")}
		want := policy.Decide(static, migrations, used)
		got := policy.Decide(static, ledger.Canonical(migrations), used)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-without a ledger +with one:\n%s", diff)
		}
	})
}

// TestCanonical holds that the order of migrations decides nothing and that they are
// not changed.
func TestCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		migrations := duplicates().Draw(t, "migrations")
		before := make([]quota.Migration, len(migrations))
		for i, m := range migrations {
			before[i] = m.DeepCopy()
		}
		canonical := ledger.Canonical(migrations)
		if diff := cmp.Diff(before, migrations); diff != "" {
			t.Fatalf("Canonical changed its argument:\n%s", diff)
		}
		shuffled := rapid.Permutation(migrations).Draw(t, "shuffled")
		if diff := cmp.Diff(canonical, ledger.Canonical(shuffled)); diff != "" {
			t.Fatalf("the order of the migrations counts:\n%s", diff)
		}
		if !ledger.Equal(migrations, shuffled) || !ledger.Equal(canonical, migrations) {
			t.Fatal("Equal does not agree with Canonical")
		}
		if !slices.IsSortedFunc(canonical, func(a, b quota.Migration) int {
			if a.UID < b.UID {
				return -1
			}
			return 1 // a UID that is there twice, too
		}) {
			t.Fatalf("not in strict order: %v", canonical)
		}
	})
	require.Nil(t, ledger.Canonical([]quota.Migration{}))
	late := metav1.NewTime(moment.Add(999 * time.Millisecond).In(time.FixedZone("", 3600)))
	require.Equal(t, moment, ledger.Canonical([]quota.Migration{{Created: late}})[0].Created.Time)
}

// duplicates draws migrations of few UIDs that often differ in one field only.
func duplicates() *rapid.Generator[[]quota.Migration] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) quota.Migration {
		m := quota.Migration{
			UID:       types.UID(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "UID")),
			VMI:       rapid.SampledFrom([]string{"", "vm"}).Draw(t, "VMI"),
			State:     rapid.SampledFrom([]quota.State{quota.Queued, quota.Blocked, quota.Charged}).Draw(t, "state"),
			Surge:     lists().Draw(t, "surge"),
			Held:      lists().Draw(t, "held"),
			Priority:  rapid.Int32Range(0, 1).Draw(t, "priority"),
			Growth:    lists().Draw(t, "growth"),
			Node:      rapid.SampledFrom([]string{"", "node"}).Draw(t, "node"),
			Over:      rapid.Bool().Draw(t, "over"),
			RefusedBy: rapid.SampledFrom([]string{"", "q"}).Draw(t, "refused by"),
			Created:   metav1.NewTime(moment.Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "s")) * time.Second)),
		}
		for range rapid.IntRange(0, 2).Draw(t, "shares") {
			m.Shares = append(m.Shares, quota.Share{
				Traits: quota.Traits{BestEffort: rapid.Bool().Draw(t, "best")},
				Surge:  lists().Draw(t, "surge"),
				Held:   lists().Draw(t, "held"),
			})
		}
		return m
	}), 0, 8)
}

func lists() *rapid.Generator[corev1.ResourceList] {
	amounts := []string{"", "0", "1", "1000m", "3", "-1", "12345678901234567890"}
	return rapid.Custom(func(t *rapid.T) corev1.ResourceList {
		if rapid.Bool().Draw(t, "nil") {
			return nil
		}
		l := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{"limits.memory", "pods"} {
			if s := rapid.SampledFrom(amounts).Draw(t, string(name)); s != "" {
				l[name] = resource.MustParse(s)
			}
		}
		return l
	})
}
