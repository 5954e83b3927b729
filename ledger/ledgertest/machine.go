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

// play carries out a schedule on l and on a plain map, and compares them after each
// step: what is recorded everywhere, and whether something was written.
func play(l ledger.Ledger, schedule []step) error {
	model := map[string][]quota.Migration{}
	for i, s := range schedule {
		want := countOnce(s.Migrations)
		changed := difference(model[s.Namespace], want, byAmount) != ""
		before, uncounted := writes(l)
		if err := replace(l, s.Namespace, copies(s.Migrations)...); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if after, _ := writes(l); uncounted == nil && (after > before) != changed {
			return fmt.Errorf("step %d: %d writes, but changed: %t", i, after-before, changed)
		}
		if changed {
			model[s.Namespace] = want
		}
		for _, namespace := range machineNamespaces {
			if err := expect(l, namespace, model[namespace], byAmount); err != nil {
				return fmt.Errorf("after step %d: %w", i, err)
			}
		}
	}
	return nil
}

// countOnce returns the most advanced one of those with the same UID, sorted by UID.
// There are none of the same state in a schedule: which of those counts is for
// duplicateOnce.
func countOnce(migrations []quota.Migration) []quota.Migration {
	var once []quota.Migration
	index := map[types.UID]int{}
	for _, m := range migrations {
		i, seen := index[m.UID]
		switch {
		case !seen:
			index[m.UID] = len(once)
			once = append(once, m)
		case m.State > once[i].State:
			once[i] = m
		}
	}
	slices.SortFunc(once, byUID)
	return once
}

var machineNamespaces = []string{"a", "b", "a-b"}

// schedules draws schedules in which a step often repeats an earlier one, or nearly
// does: with some migrations changed, or with other spellings.
func schedules() *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) []step {
		schedule := make([]step, rapid.IntRange(1, 20).Draw(t, "steps"))
		for i := range schedule {
			s := &schedule[i]
			s.Namespace = rapid.SampledFrom(machineNamespaces).Draw(t, "namespace")
			if i == 0 || rapid.IntRange(0, 3).Draw(t, "again") == 0 {
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
		field := strings.Fields(v.name)[0]
		byField[field] = append(byField[field], v)
	}
	var fields []*rapid.Generator[variant]
	for _, field := range slices.Sorted(maps.Keys(byField)) {
		fields = append(fields, rapid.SampledFrom(byField[field]))
	}
	return rapid.OneOf(fields...)
}
