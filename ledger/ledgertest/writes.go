package ledgertest

import (
	"fmt"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// changesAreSeen replaces a record by one that differs in a single field, so that a
// ledger that takes them for equal is found out.
func changesAreSeen(open opener) error {
	l := open()
	var previous quota.Migration
	for i, v := range different {
		before, after := full(first), v.of(full(first))
		steps := [][]quota.Migration{{before}, {after}, {before, full(second)}, {after, full(second)}, {after}}
		if i > 0 { // nil and empty stand side by side
			steps = append(steps, []quota.Migration{previous}, []quota.Migration{after})
		}
		for _, migrations := range steps {
			if err := record(l, migrations...); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		previous = after
	}
	return nil
}

func writesNothingWhenEqual(open opener) error {
	bare, empty := blocked(first), blocked(first)
	bare.Surge, empty.Surge = nil, list()
	weaker := full(first)
	weaker.State = quota.Queued
	type rewrite struct {
		name    string
		record  []quota.Migration
		rewrite []quota.Migration
	}
	rewrites := []rewrite{
		{"none, by nil", nil, nil},
		{"none, by an empty slice", nil, []quota.Migration{}},
		{"an empty Surge for nil", []quota.Migration{bare}, []quota.Migration{empty}},
		{"nil for an empty Surge", []quota.Migration{empty}, []quota.Migration{bare}},
		{
			"another order",
			[]quota.Migration{full(first), blocked(second), blocked("0")},
			[]quota.Migration{blocked(second), full(first), blocked("0")},
		},
		{"listed twice", []quota.Migration{full(first)}, []quota.Migration{full(first), full(first)}},
		{"a duplicate that does not count", []quota.Migration{full(first)}, []quota.Migration{weaker, full(first)}},
	}
	for _, v := range same {
		rewrites = append(rewrites, rewrite{v.name, []quota.Migration{full(first)}, []quota.Migration{v.of(full(first))}})
	}
	for _, v := range different {
		m := v.of(full(first))
		rewrites = append(rewrites, rewrite{"a copy: " + v.name, []quota.Migration{m}, []quota.Migration{m}})
	}
	for _, r := range rewrites {
		l := open()
		if err := expectWrites(l, r.record, len(r.record) > 0); err != nil {
			return fmt.Errorf("%s: first Replace: %w", r.name, err)
		}
		for range 2 {
			if err := expectWrites(l, r.rewrite, false); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		if err := expect(l, tenant, r.record, byAmount); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// expectWrites replaces the record of tenant and compares whether that was a write.
func expectWrites(l ledger.Ledger, migrations []quota.Migration, want bool) error {
	before, err := writes(l)
	if err != nil {
		return err
	}
	if err := replace(l, tenant, copies(migrations)...); err != nil {
		return err
	}
	after, err := writes(l)
	if err != nil {
		return err
	}
	if wrote := after > before; wrote != want {
		return fmt.Errorf("Replace made %d writes; wanted some: %t", after-before, want)
	}
	return nil
}
