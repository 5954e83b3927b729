package ledgertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// A step replaces the record of a namespace.
type step struct {
	Namespace  string
	Migrations []quota.Migration
}

// plays returns the check that plays a schedule on a new ledger.
func plays(schedule []step) func(open opener) error {
	return func(open opener) error { return play(open(), schedule) }
}

// play carries out a schedule on l and on a plain map, and compares them after each
// step: what is recorded everywhere, and whether something was written.
func play(l ledger.Ledger, schedule []step) error {
	model := map[string][]quota.Migration{}
	for _, s := range schedule {
		model[s.Namespace] = nil
	}
	_, counts := l.(Counter)
	for i, s := range schedule {
		want := countOnce(s.Migrations)
		changed := difference(model[s.Namespace], want, byAmount) != ""
		before := writes(l)
		if err := replace(l, s.Namespace, s.Migrations); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if after := writes(l); counts && (after > before) != changed {
			return fmt.Errorf("step %d: %d writes, but changed: %t", i, after-before, changed)
		}
		if changed {
			model[s.Namespace] = want
		}
		for namespace, want := range model {
			if err := expect(l, namespace, want, byAmount); err != nil {
				return fmt.Errorf("after step %d: %w", i, err)
			}
		}
	}
	return nil
}

// countOnce returns the most advanced one of those with the same UID, sorted by UID. In a
// schedule those of the same state are the same; which of others counts is for duplicateOnce.
func countOnce(migrations []quota.Migration) []quota.Migration {
	once := map[types.UID]quota.Migration{}
	for _, m := range migrations {
		if known, seen := once[m.UID]; !seen || m.State > known.State {
			once[m.UID] = m
		}
	}
	return slices.SortedFunc(maps.Values(once), byUID)
}

// steps returns a schedule that makes each of records the tenant's.
func steps(records ...[]quota.Migration) []step {
	schedule := make([]step, len(records))
	for i, r := range records {
		schedule[i] = step{tenant, r}
	}
	return schedule
}

func wholes() []step {
	return steps(
		nil, []quota.Migration{}, []quota.Migration{blocked(first)}, []quota.Migration{blocked(second)},
		[]quota.Migration{blocked(first), full(second)}, []quota.Migration{full(second)}, nil,
		[]quota.Migration{full(first), blocked(second)}, []quota.Migration{}, []quota.Migration{blocked(first)},
	)
}

// anyUID records UIDs that a store may confuse, refuse, cut off or sort otherwise.
func anyUID() []step {
	uids := []types.UID{
		"", " ", ".", "..", "..a", "-", "_", "__", "/", "a/b", `a\b`, "a.b", "a-b", "a_b", "a b", "a\nb", "a\x00b", "a,b", "a:b", "a%b",
		"a", "A", "b10", "b9", "B", "a=", "=", "%2f", "%2F", "_2f", "_2F", "a_2fb", "ä", "a\u0308", "é中", "\U0001f600", `"`, "<&>",
		"uid", "version",
		types.UID(strings.Repeat("x", 63)), types.UID(strings.Repeat("x", 64)),
		types.UID(strings.Repeat("x", 253)), types.UID(strings.Repeat("x", 254)),
		types.UID(strings.Repeat("/", 300) + "1"), types.UID(strings.Repeat("/", 300) + "2"),
	}
	var records [][]quota.Migration
	var all []quota.Migration
	for _, uid := range uids {
		m := blocked(uid)
		m.VMI = fmt.Sprintf("of %q", uid)
		all = append(all, m)
		records = append(records, []quota.Migration{m})
	}
	return steps(append(records, all)...)
}

// changes replaces a record by one that differs in a single field, so that a ledger that
// takes them for equal is found out, and each record by itself.
func changes() []step {
	var records [][]quota.Migration
	previous := full(first)
	for _, v := range different {
		before, after := []quota.Migration{full(first), full(second)}, []quota.Migration{v.of(full(first)), full(second)}
		records = append(records, before, after, after, []quota.Migration{previous}, after[:1])
		previous = after[0]
	}
	return steps(records...)
}

// rewrites replaces records by what is equal to them.
func rewrites() []step {
	weaker := full(first)
	weaker.State = quota.Queued
	three, one := []quota.Migration{full(first), blocked(second), blocked("0")}, []quota.Migration{full(first)}
	records := [][]quota.Migration{nil, {}, three, {three[2], three[0], three[1]}, one, {one[0], one[0]}, {weaker, one[0]}}
	for _, v := range same {
		records = append(records, []quota.Migration{v.of(full(first))}, []quota.Migration{full(first)})
	}
	return steps(records...)
}

// namespaces records the same UID in namespaces with names that a store may confuse. All are
// legal: DNS labels.
func namespaces() []step {
	var recorded, removed []step
	for _, namespace := range []string{
		"a", "b", "a-b", "a--b", "0", "default", "kube-system", "ledger", "headroom",
		strings.Repeat("n", 62), strings.Repeat("n", 63), strings.Repeat("n", 62) + "m",
	} {
		m := full(first)
		m.VMI = "in " + namespace
		recorded = append(recorded, step{namespace, []quota.Migration{m}})
		removed = append(removed, step{namespace, nil})
	}
	return append(recorded, removed...)
}

// schedules draws schedules of few migrations, so that a step often repeats an earlier one, or
// nearly does: with one migration changed, or with other spellings.
func schedules() *rapid.Generator[[]step] {
	variants := rapid.SampledFrom(slices.Concat(same, different))
	return rapid.Custom(func(t *rapid.T) []step {
		var all []quota.Migration
		for _, uid := range []types.UID{"1", "2", "3", ""} {
			m := rapid.SampledFrom([]quota.Migration{{}, blocked(""), full("")}).Draw(t, "migration")
			m.UID = uid
			all = append(all, m)
		}
		schedule := make([]step, rapid.IntRange(1, 20).Draw(t, "steps"))
		for i := range schedule {
			migrations := rapid.Permutation(all).Draw(t, "order")[:rapid.IntRange(0, len(all)).Draw(t, "migrations")]
			if len(migrations) > 0 {
				migrations[0] = variants.Draw(t, "change").of(migrations[0])
				more := variants.Draw(t, "duplicate").of(migrations[0])
				if more.State != migrations[0].State {
					migrations = append(migrations, more)
				}
			}
			schedule[i] = step{rapid.SampledFrom([]string{"a", "b", "a-b"}).Draw(t, "namespace"), migrations}
		}
		return schedule
	})
}
