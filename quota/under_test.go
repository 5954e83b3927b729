package quota_test

import (
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

// sameMigration compares quantities as sameList does. A list that is nil is not one that is empty.
func sameMigration(a, b quota.Migration) bool {
	return a.UID == b.UID && a.VMI == b.VMI && a.State == b.State && a.Priority == b.Priority && a.Created == b.Created &&
		a.Node == b.Node && a.Over == b.Over && a.RefusedBy == b.RefusedBy &&
		sameList(a.Surge, b.Surge) && sameList(a.Held, b.Held) && sameList(a.Growth, b.Growth) &&
		slices.EqualFunc(a.Shares, b.Shares, func(a, b quota.Share) bool {
			return a.Traits == b.Traits && sameList(a.Surge, b.Surge) && sameList(a.Held, b.Held)
		})
}

func TestUnder(t *testing.T) {
	const storage = corev1.ResourceRequestsStorage
	// A virt-launcher pod, an attachment pod of no class, and a backend-storage claim.
	shared := quota.Migration{
		UID:      "shared",
		VMI:      "vm",
		State:    quota.Charged,
		Surge:    listOf(cpu, "2", memory, "3Gi", storage, "10Gi"),
		Held:     listOf(cpu, "1", memory, "1Gi", storage, "10Gi"),
		Priority: 7,
		Created:  metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		Shares: []quota.Share{
			{Traits: quota.Traits{PriorityClass: "gold"}, Surge: listOf(cpu, "1500m", memory, "2Gi"), Held: listOf(cpu, "1", memory, "1Gi")},
			{Surge: listOf(cpu, "500m", memory, "1Gi"), Held: corev1.ResourceList{}},
			{Traits: quota.Traits{Claim: true, VolumeAttributesClass: "fast"}, Surge: listOf(storage, "10Gi"), Held: listOf(storage, "10Gi")},
		},
	}
	cut := func(surge, held corev1.ResourceList, shares ...int) quota.Migration {
		m := shared
		m.Surge, m.Held, m.Shares = surge, held, nil
		for _, i := range shares {
			m.Shares = append(m.Shares, shared.Shares[i])
		}
		return m
	}
	plain, empty := blocked("plain", cpu, "1.500", memory, "1Gi"), blocked("empty", cpu, "1")
	empty.Shares = []quota.Share{} // nothing for the scopes to select
	for _, row := range []struct {
		name string
		rq   *corev1.ResourceQuota
		want []quota.Migration
	}{
		{"no quota", nil, nil},
		{"no scopes: all of it", scoped(), []quota.Migration{shared, plain, empty}},
		{"a selector that asks nothing: all that there is", &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{}}}, []quota.Migration{shared, plain}},
		{"terminating", scoped(corev1.ResourceQuotaScopeTerminating), nil},
		{"best effort", scoped(corev1.ResourceQuotaScopeBestEffort), nil},
		{"not terminating, not best effort: the pods", scoped(corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort), []quota.Migration{cut(listOf(cpu, "2", memory, "3Gi"), listOf(cpu, "1", memory, "1Gi"), 0, 1), plain}},
		{"a class: its pod", selecting(priority, corev1.ScopeSelectorOpIn, "gold"), []quota.Migration{cut(listOf(cpu, "1500m", memory, "2Gi"), listOf(cpu, "1", memory, "1Gi"), 0)}},
		{"any class: its pod", selecting(priority, corev1.ScopeSelectorOpExists), []quota.Migration{cut(listOf(cpu, "1500m", memory, "2Gi"), listOf(cpu, "1", memory, "1Gi"), 0)}},
		{"a class of volumes: the claim", selecting(attributes, corev1.ScopeSelectorOpIn, "fast"), []quota.Migration{cut(listOf(storage, "10Gi"), listOf(storage, "10Gi"), 2)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := quota.Under(row.rq, []quota.Migration{shared, plain, empty})
			require.True(t, slices.EqualFunc(row.want, got, sameMigration), gocmp.Diff(row.want, got, exactly))
		})
	}
}

// A share that says nothing of what it holds says what a migration would say.
func TestUnderHeldOfShares(t *testing.T) {
	pod := scoped(corev1.ResourceQuotaScopeNotTerminating)
	share := func(surge string, held corev1.ResourceList) quota.Share {
		return quota.Share{Surge: listOf(cpu, surge), Held: held}
	}
	for _, row := range []struct {
		name      string
		state     quota.State
		shares    []quota.Share
		temporary string
	}{
		{"none says: all of it", quota.Charged, []quota.Share{share("1", nil), share("2", nil)}, "3"},
		{"all say", quota.Charged, []quota.Share{share("1", listOf(cpu, "1")), share("2", listOf(cpu, "500m"))}, "1500m"},
		{"all say nothing", quota.Charged, []quota.Share{share("1", corev1.ResourceList{}), share("2", corev1.ResourceList{})}, "0"},
		{"one says", quota.Charged, []quota.Share{share("1", nil), share("2", corev1.ResourceList{})}, "1"},
		{"blocked", quota.Blocked, []quota.Share{share("1", nil), share("2", nil)}, "0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := quota.Migration{UID: "a", State: row.state, Surge: listOf(cpu, "3"), Shares: row.shares}
			seen := quota.Under(pod, []quota.Migration{m})
			d := quota.Policy{}.Decide(listOf(cpu, "10"), seen, listOf(cpu, "5"))
			require.Equal(t, "13", textOf(d.Hard[cpu]))
			require.Equal(t, row.temporary, textOf(d.Temporary[cpu]))
		})
	}
}

// Of two quotas whose scopes are opposites, each pod is in one.
func TestUnderDivides(t *testing.T) {
	yes, no := scoped(corev1.ResourceQuotaScopeTerminating), scoped(corev1.ResourceQuotaScopeNotTerminating)
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		want := rats{}
		for _, m := range s.migrations {
			if m.Shares == nil {
				for name, q := range m.Surge {
					want[name] = plus(want.at(name), positive(ratOf(q)))
				}
			}
			for _, share := range m.Shares {
				for name, q := range share.Surge {
					if !share.Traits.Claim {
						want[name] = plus(want.at(name), positive(ratOf(q)))
					}
				}
			}
		}
		got := rats{}
		for _, rq := range []*corev1.ResourceQuota{yes, no} {
			seen := quota.Under(rq, s.migrations)
			for _, m := range seen {
				for name, q := range m.Surge {
					got[name] = plus(got.at(name), positive(ratOf(q)))
				}
			}
			again := quota.Under(rq, seen)
			if !slices.EqualFunc(seen, again, sameMigration) {
				t.Fatalf("what it sees looks different to it (-first +second): %s\nof\n%s", gocmp.Diff(seen, again, exactly), s)
			}
		}
		for _, name := range s.names {
			if want.at(name).Cmp(got.at(name)) != 0 {
				t.Fatalf("of %s %s, both together see %s:\n%s", want.at(name).FloatString(9), name, got.at(name).FloatString(9), s)
			}
		}
	})
}
