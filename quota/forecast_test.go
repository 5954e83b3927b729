package quota_test

import (
	"math/big"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

// Three VMs of 2, 4 and 8 GiB run in a quota of 16 GiB, so 2 GiB are left.
func TestForesee(t *testing.T) {
	gib := func(n string) corev1.ResourceList {
		return corev1.ResourceList{"limits.memory": resource.MustParse(n + "Gi")}
	}
	vms := []quota.Migration{{UID: "two", Surge: gib("2")}, {UID: "four", Surge: gib("4")}, {UID: "eight", Surge: gib("8")}}
	for _, test := range []struct {
		parallel int
		refused  map[types.UID]corev1.ResourceList
		enough   string
	}{
		{0, map[types.UID]corev1.ResourceList{"four": gib("2"), "eight": gib("6")}, "22"},
		{1, map[types.UID]corev1.ResourceList{"four": gib("2"), "eight": gib("6")}, "22"},
		{2, map[types.UID]corev1.ResourceList{"two": gib("8"), "four": gib("10"), "eight": gib("10")}, "26"},
		{3, map[types.UID]corev1.ResourceList{"two": gib("12"), "four": gib("12"), "eight": gib("12")}, "28"},
		{9, map[types.UID]corev1.ResourceList{"two": gib("12"), "four": gib("12"), "eight": gib("12")}, "28"},
	} {
		got := quota.Foresee(gib("16"), vms, gib("14"), test.parallel)
		require.Empty(t, gocmp.Diff(quota.Forecast{Refused: test.refused, Enough: gib(test.enough)}, got), "parallel %d", test.parallel)
	}
	charged := append([]quota.Migration{{UID: "eight", State: quota.Charged, Surge: gib("8")}}, vms[:2]...)
	got := quota.Foresee(gib("24"), charged, gib("22"), 1)
	require.Empty(t, got.Refused, "when it is over, 10 GiB are left")
	got = quota.Foresee(gib("16"), charged, gib("22"), 1)
	require.NotContains(t, got.Refused, types.UID("eight"), "its target pod is there")
	require.Contains(t, got.Refused, types.UID("four"))
	grows := []quota.Migration{{UID: "grows", Surge: gib("1"), Growth: gib("1")}, {UID: "other", Surge: gib("1")}}
	require.Empty(t, quota.Foresee(gib("4"), grows, gib("2"), 1).Refused)
	want := map[types.UID]corev1.ResourceList{"grows": gib("1"), "other": gib("1")}
	require.Empty(t, gocmp.Diff(want, quota.Foresee(gib("4"), grows, gib("2"), 2).Refused), "what the guest has grown by stays")
}

// Nothing that is not foreseen happens: whatever the order in which migrations begin and end,
// only those that may be refused are.
func TestForeseeIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		parallel := rapid.IntRange(1, 4).Draw(t, "parallel")
		for i := range s.migrations {
			if rapid.Bool().Draw(t, "grows") {
				s.migrations[i].Growth = s.migrations[len(s.migrations)-1-i].Surge.DeepCopy()
			}
		}
		foreseen := quota.Foresee(s.static, s.migrations, s.used, parallel)
		for name, limit := range s.static {
			lasting, surging, running := positive(ratOf(s.decide().Regular[name])), new(big.Rat), 0
			for _, m := range rapid.Permutation(s.migrations).Draw(t, "order") {
				if running++; running > parallel {
					surging, running = new(big.Rat), 1 // all that ran end
				}
				surge, growth := positive(ratOf(m.Surge[name])), positive(ratOf(m.Growth[name]))
				wanted := plus(plus(lasting, surging), plus(surge, growth))
				_, refused := foreseen.Refused[m.UID][name]
				if !refused && m.State < quota.Charged && plus(surge, growth).Sign() > 0 && wanted.Cmp(positive(ratOf(limit))) > 0 {
					t.Fatalf("%q is refused for want of %s", m.UID, name)
				}
				surging, lasting = plus(surging, surge), plus(lasting, growth)
			}
		}
	})
}

// With the limits that are enough nothing is refused; what is missing at worst is what they
// are higher.
func TestEnoughIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		parallel := rapid.IntRange(0, 9).Draw(t, "parallel")
		before := quota.Foresee(s.static, s.migrations, s.used, parallel)
		require.Empty(t, quota.Foresee(before.Enough, s.migrations, s.used, parallel).Refused)
		require.Len(t, before.Enough, len(s.static))
		worst := rats{}
		for _, missing := range before.Refused {
			for name, q := range missing {
				require.Positive(t, q.Sign())
				if worst.at(name).Cmp(ratOf(q)) < 0 {
					worst[name] = ratOf(q)
				}
			}
		}
		for name, limit := range s.static {
			want := ratOf(limit)
			if worst.at(name).Sign() > 0 {
				want = plus(positive(want), worst.at(name))
			}
			require.Zero(t, want.Cmp(ratOf(before.Enough[name])), name)
		}
		more := quota.Foresee(s.static, s.migrations, s.used, parallel+1)
		for uid, missing := range before.Refused {
			for name, q := range missing {
				later := more.Refused[uid][name]
				require.GreaterOrEqual(t, later.Cmp(q), 0, "more at the same time, less missing")
			}
		}
	})
}

// One at a time, a migration that does not grow its guest is refused exactly if a workload
// that asks for its surge is.
func TestForeseenOneAtATime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		for i := range s.migrations {
			s.migrations[i].Growth = nil
		}
		refused := quota.Foresee(s.static, s.migrations, s.used, 1).Refused
		for _, m := range s.migrations {
			if m.State < quota.Charged {
				require.Equal(t, s.decide().Fits(m.Surge) != nil, refused[m.UID] != nil, m.UID)
			}
		}
	})
}

func TestForeseeIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawn := triplets.Draw(t, "scenarios")
		got := quota.Foresee(drawn[0].static, drawn[0].migrations, drawn[0].used, 2)
		require.Equal(t, drawn[1].String(), drawn[0].String(), "its arguments are read only")
		for _, missing := range got.Refused {
			spoil(missing)
		}
		spoil(got.Enough)
		require.Equal(t, drawn[1].String(), drawn[0].String(), "its result shares no memory with them")
	})
	none := quota.Forecast{Refused: map[types.UID]corev1.ResourceList{}, Enough: corev1.ResourceList{}}
	require.Equal(t, none, quota.Foresee(nil, nil, nil, 0))
}
