package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// recorded compares migrations by what the contract says of their fields. It does
// not use ledger.Equal, which the ledger under test may be built on.
var recorded = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Unix() == b.Unix() }),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Surge" || p.Last().String() == ".Growth" }, cmpopts.EquateEmpty()),
}

var (
	byAmount   = cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
	bySpelling = cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 && a.String() == b.String() })
)

// expect reads namespace and compares it with want, which is in any order.
func expect(l ledger.Ledger, namespace string, want []quota.Migration, quantities cmp.Option) error {
	got, err := l.Migrations(context.Background(), namespace)
	if err != nil {
		return fmt.Errorf("Migrations(%q): %w", namespace, err)
	}
	if diff := difference(want, got, quantities); diff != "" {
		return fmt.Errorf("Migrations(%q) is not what was recorded (-want +got):\n%s", namespace, diff)
	}
	return nil
}

// difference compares got with want in the order of UIDs.
func difference(want, got []quota.Migration, quantities cmp.Option) string {
	if len(want) == 0 && len(got) == 0 {
		return ""
	}
	return cmp.Diff(slices.SortedFunc(slices.Values(want), byUID), got, recorded, quantities)
}

func byUID(a, b quota.Migration) int { return strings.Compare(string(a.UID), string(b.UID)) }

// replace is Replace with an error that says where it came from.
func replace(l ledger.Ledger, namespace string, migrations []quota.Migration) error {
	if err := l.Replace(context.Background(), namespace, migrations); err != nil {
		return fmt.Errorf("Replace(%q): %w", namespace, err)
	}
	return nil
}

// writes returns how many writes l has made; always zero if it is no Counter.
func writes(l ledger.Ledger) int {
	if counter, ok := l.(Counter); ok {
		return counter.Writes()
	}
	return 0
}

func fieldsSurvive(open opener) error {
	migrations := []quota.Migration{{UID: "zero"}, full(first)}
	for i, v := range different {
		migrations = append(migrations, v.of(full(types.UID(fmt.Sprintf("%s-%d", second, i)))))
	}
	l := open()
	return errors.Join(replace(l, tenant, migrations), expect(l, tenant, migrations, bySpelling))
}

// duplicateOnce lists UIDs twice.
func duplicateOnce(open opener) error {
	var errs []error
	for _, c := range []struct {
		name          string
		winner, loser func(m *quota.Migration)
	}{
		{
			"the more advanced state", func(m *quota.Migration) { m.Surge = list("pods", "1") },
			func(m *quota.Migration) { m.Surge, m.State = list("pods", "9"), quota.Blocked },
		},
		{
			"the greater surge", func(m *quota.Migration) { m.Surge, m.Priority = list("pods", "10"), 1 },
			func(m *quota.Migration) { m.Surge, m.Priority = list("pods", "9"), 2 },
		},
		{"all held before a part", func(m *quota.Migration) { m.Held = nil }, func(m *quota.Migration) { m.Held = list("pods", "1") }},
		{
			"more held", func(m *quota.Migration) { m.Held = list("pods", "2") },
			func(m *quota.Migration) { m.Held = list("pods", "1") },
		},
		{"the higher priority", func(*quota.Migration) {}, func(m *quota.Migration) { m.Priority-- }},
		{"the older", func(*quota.Migration) {}, func(m *quota.Migration) { m.Created.Time = m.Created.AddDate(0, 0, 1) }},
	} {
		winner, loser, other := full(first), full(first), blocked(second)
		c.winner(&winner)
		c.loser(&loser)
		for _, order := range [][]quota.Migration{
			{winner, loser, other}, {loser, winner, other}, {loser, other, winner, loser}, {winner, other, winner},
		} {
			l := open()
			if err := errors.Join(replace(l, tenant, order), expect(l, tenant, []quota.Migration{winner, other}, byAmount)); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// refusesCalls calls a ledger for the empty namespace and with contexts that are done, both
// where there is something to write and where there is not.
func refusesCalls(open opener) error {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithDeadline(context.Background(), moment.AddDate(-1000, 0, 0))
	defer cancel()

	l, recorded := open(), []quota.Migration{full(first)}
	if err := replace(l, tenant, recorded); err != nil {
		return err
	}
	before := writes(l)
	for _, c := range []struct {
		ctx       context.Context
		namespace string
		want      error
	}{
		{context.Background(), "", ledger.ErrNoNamespace},
		{cancelled, tenant, context.Canceled},
		{expired, tenant, context.DeadlineExceeded},
	} {
		for _, migrations := range [][]quota.Migration{recorded, {blocked(second)}, nil} {
			if err := l.Replace(c.ctx, c.namespace, migrations); !errors.Is(err, c.want) {
				return fmt.Errorf("Replace(%q) = %w, want %w", c.namespace, err, c.want)
			}
		}
		got, err := l.Migrations(c.ctx, c.namespace)
		if !errors.Is(err, c.want) || len(got) > 0 {
			return fmt.Errorf("Migrations(%q) = %d migrations and %w, want none and %w", c.namespace, len(got), err, c.want)
		}
	}
	if after := writes(l); after != before {
		return fmt.Errorf("%d writes by calls that were refused", after-before)
	}
	return expect(l, tenant, recorded, byAmount)
}
