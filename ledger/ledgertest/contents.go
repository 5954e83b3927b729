package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

func emptyIsNoError(open opener) error {
	l := open()
	for _, none := range [][]quota.Migration{nil, {}} {
		if err := expect(l, tenant, nil, byAmount); err != nil {
			return err
		}
		if err := replace(l, tenant, none...); err != nil {
			return err
		}
	}
	return expect(l, tenant, nil, byAmount)
}

func replacesTheWhole(open opener) error {
	l := open()
	steps := [][]quota.Migration{
		{blocked(first)},
		{blocked(second)},
		{blocked(first), full(second)},
		{full(second)},
		nil,
		{full(first), blocked(second)},
		{},
		{blocked(first)},
	}
	for i, migrations := range steps {
		if err := record(l, migrations...); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func sorted(open opener) error {
	l := open()
	var migrations []quota.Migration
	for _, uid := range []types.UID{"c", "a", "b10", "b9", "B", "e", "d"} {
		migrations = append(migrations, blocked(uid))
	}
	if err := record(l, migrations...); err != nil {
		return err
	}
	return record(l, append(migrations[3:], migrations[:2]...)...)
}

func fieldsSurvive(open opener) error {
	migrations := []quota.Migration{{UID: "zero"}, full(first)}
	for i, v := range different {
		m := v.of(full(types.UID(fmt.Sprintf("%s-%d", second, i))))
		migrations = append(migrations, m)
	}
	l := open()
	if err := replace(l, tenant, copies(migrations)...); err != nil {
		return err
	}
	return expect(l, tenant, migrations, bySpelling)
}

// anyUID records UIDs that a store may confuse, refuse or cut off.
func anyUID(open opener) error {
	uids := []types.UID{
		"", " ", ".", "..", "..a", "-", "_", "__", "/", "a/b", `a\b`, "a.b", "a-b", "a_b", "a b", "a\nb", "a\x00b", "a,b", "a:b", "a%b",
		"a", "A", "a=", "=", "%2f", "%2F", "_2f", "_2F", "a_2fb", "ä", "a\u0308", "é中", "\U0001f600", `"`, "<&>", "uid", "version",
		types.UID(strings.Repeat("x", 63)), types.UID(strings.Repeat("x", 64)),
		types.UID(strings.Repeat("x", 253)), types.UID(strings.Repeat("x", 254)),
		types.UID(strings.Repeat("/", 300) + "1"), types.UID(strings.Repeat("/", 300) + "2"),
	}
	l := open()
	var all []quota.Migration
	for _, uid := range uids {
		m := blocked(uid)
		m.VMI = fmt.Sprintf("of %q", uid)
		if err := record(l, m); err != nil {
			return fmt.Errorf("UID %q: %w", uid, err)
		}
		all = append(all, m)
	}
	return record(l, all...)
}

// duplicateOnce lists UIDs twice. The one that is expected stands first.
func duplicateOnce(open opener) error {
	counts := []struct {
		name   string
		winner variant
		loser  variant
	}{
		{
			"the more advanced state",
			variant{apply: func(m *quota.Migration) { m.State, m.Surge = quota.Charged, list("pods", "1") }},
			variant{apply: func(m *quota.Migration) { m.State, m.Surge = quota.Blocked, list("pods", "9") }},
		},
		{
			"the greater surge",
			variant{apply: func(m *quota.Migration) { m.Surge, m.Priority = list("pods", "10"), 1 }},
			variant{apply: func(m *quota.Migration) { m.Surge, m.Priority = list("pods", "9"), 2 }},
		},
		{
			"one more resource",
			variant{apply: func(m *quota.Migration) { m.Surge = list("limits.cpu", "1", "pods", "0") }},
			variant{apply: func(m *quota.Migration) { m.Surge = list("limits.cpu", "1") }},
		},
		{
			"all held before a part",
			variant{apply: func(m *quota.Migration) { m.Held = nil }},
			variant{apply: func(m *quota.Migration) { m.Held = list("pods", "1") }},
		},
		{
			"more held",
			variant{apply: func(m *quota.Migration) { m.Held = list("pods", "2") }},
			variant{apply: func(m *quota.Migration) { m.Held = list("pods", "1") }},
		},
		{
			"the higher priority",
			variant{apply: func(m *quota.Migration) { m.Priority = 2 }},
			variant{apply: func(m *quota.Migration) { m.Priority = 1 }},
		},
		{
			"the older",
			variant{apply: func(*quota.Migration) {}},
			variant{apply: func(m *quota.Migration) { m.Created.Time = m.Created.AddDate(0, 0, 1) }},
		},
	}
	var errs []error
	for _, c := range counts {
		winner, loser := c.winner.of(full(first)), c.loser.of(full(first))
		other := blocked(second)
		for _, order := range [][]quota.Migration{
			{winner, loser, other}, {loser, winner, other}, {loser, other, winner, loser}, {winner, other, winner},
		} {
			l := open()
			err := l.Replace(context.Background(), tenant, copies(order))
			if err == nil {
				err = expect(l, tenant, []quota.Migration{winner, other}, byAmount)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			}
		}
	}
	return errors.Join(errs...)
}
