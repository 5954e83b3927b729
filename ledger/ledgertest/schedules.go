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
// takes them for equal is found out.
func changes() []step {
	var records [][]quota.Migration
	previous := full(first)
	for _, v := range different {
		before, after := full(first), v.of(full(first))
		records = append(records, []quota.Migration{before, full(second)}, []quota.Migration{after, full(second)},
			[]quota.Migration{previous}, []quota.Migration{after}) // nil and empty stand side by side
		previous = after
	}
	return steps(records...)
}

// rewrites replaces records by what is equal to them.
func rewrites() []step {
	bare, empty := blocked(first), blocked(first)
	bare.Surge, empty.Surge = nil, list()
	weaker := full(first)
	weaker.State = quota.Queued
	records := [][]quota.Migration{
		nil,
		{},
		{bare},
		{empty},
		{bare},
		{full(first), blocked(second), blocked("0")},
		{blocked(second), full(first), blocked("0")},
		{full(first)},
		{full(first), full(first)},
		{weaker, full(first)},
	}
	for _, v := range same {
		records = append(records, []quota.Migration{v.of(full(first))}, []quota.Migration{v.of(full(first))}, []quota.Migration{full(first)})
	}
	for _, v := range different {
		m := v.of(full(first))
		records = append(records, []quota.Migration{m}, []quota.Migration{m})
	}
	return steps(records...)
}

// namespaces records the same UID in namespaces with names that a store may confuse. All are
// legal: DNS labels.
func namespaces() []step {
	var schedule []step
	for _, namespace := range []string{
		"a", "b", "a-b", "a--b", "0", "default", "kube-system", "ledger", "headroom",
		strings.Repeat("n", 62), strings.Repeat("n", 63), strings.Repeat("n", 62) + "m",
	} {
		m := full(first)
		m.VMI = "in " + namespace
		schedule = append(schedule, step{namespace, []quota.Migration{m}})
	}
	for _, s := range slices.Clone(schedule) {
		schedule = append(schedule, step{s.Namespace, nil})
	}
	return schedule
}

// schedules draws schedules in which a step often repeats an earlier one, or nearly
// does: with some migrations changed, or with other spellings.
func schedules() *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) []step {
		schedule := make([]step, rapid.IntRange(1, 20).Draw(t, "steps"))
		for i := range schedule {
			s := &schedule[i]
			if i == 0 || rapid.IntRange(0, 3).Draw(t, "again") == 0 {
				s.Namespace = rapid.SampledFrom([]string{"a", "b", "a-b"}).Draw(t, "namespace")
				for range rapid.IntRange(0, 4).Draw(t, "migrations") {
					m := rapid.SampledFrom([]quota.Migration{{}, blocked(""), full("")}).Draw(t, "base").DeepCopy()
					m.UID = types.UID(rapid.SampledFrom([]string{"1", "2", "3", ""}).Draw(t, "UID"))
					for range rapid.IntRange(0, 4).Draw(t, "changes") {
						variants().Draw(t, "change").apply(&m)
					}
					s.add(m)
				}
				continue
			}
			earlier := schedule[rapid.IntRange(0, i-1).Draw(t, "earlier")]
			s.Namespace = earlier.Namespace
			again := rapid.Permutation(copies(earlier.Migrations)).Draw(t, "order")
			if len(again) > 0 {
				variants().Draw(t, "change").apply(&again[0])
			}
			for _, m := range again {
				s.add(m)
			}
		}
		return schedule
	})
}

// add adds m, unless there is one of the same UID in the same state.
func (s *step) add(m quota.Migration) {
	if !slices.ContainsFunc(s.Migrations, func(other quota.Migration) bool { return other.UID == m.UID && other.State == m.State }) {
		s.Migrations = append(s.Migrations, m)
	}
}

// variants draws changes: of each field as often, and of spellings.
func variants() *rapid.Generator[variant] {
	byField := map[string][]variant{"same": same, "turned": {{"Held nil or empty", func(m *quota.Migration) {
		if m.Held == nil {
			m.Held = list()
		} else {
			m.Held = nil
		}
	}}}}
	for _, v := range different {
		field := strings.FieldsFunc(v.name, func(r rune) bool { return strings.ContainsRune(". [", r) })[0]
		byField[field] = append(byField[field], v)
	}
	var fields []*rapid.Generator[variant]
	for _, field := range slices.Sorted(maps.Keys(byField)) {
		fields = append(fields, rapid.SampledFrom(byField[field]))
	}
	return rapid.OneOf(fields...)
}
