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
	corev1 "k8s.io/api/core/v1"
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

// replace is Replace of copies, with an error that says where it came from.
func replace(l ledger.Ledger, namespace string, migrations []quota.Migration) error {
	if err := l.Replace(context.Background(), namespace, copies(migrations)); err != nil {
		return fmt.Errorf("Replace(%q): %w", namespace, err)
	}
	return nil
}

// copies returns migrations without any memory that a ledger could write to, or keep.
// Nil stays nil.
func copies(migrations []quota.Migration) []quota.Migration {
	c := slices.Clone(migrations)
	for i := range c {
		c[i] = c[i].DeepCopy()
	}
	return c
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
	type edit = func(m *quota.Migration)
	surge := func(pairs ...string) edit { return func(m *quota.Migration) { m.Surge = list(pairs...) } }
	held := func(l corev1.ResourceList) edit { return func(m *quota.Migration) { m.Held = l } }
	priority := func(p int32) edit { return func(m *quota.Migration) { m.Priority = p } }
	counts := []struct {
		name          string
		winner, loser []edit
	}{
		{
			"the more advanced state",
			[]edit{surge("pods", "1")},
			[]edit{surge("pods", "9"), func(m *quota.Migration) { m.State = quota.Blocked }},
		},
		{"the greater surge", []edit{surge("pods", "10"), priority(1)}, []edit{surge("pods", "9"), priority(2)}},
		{"one more resource", []edit{surge("limits.cpu", "1", "pods", "0")}, []edit{surge("limits.cpu", "1")}},
		{"all held before a part", []edit{held(nil)}, []edit{held(list("pods", "1"))}},
		{"more held", []edit{held(list("pods", "2"))}, []edit{held(list("pods", "1"))}},
		{"the higher priority", []edit{priority(2)}, []edit{priority(1)}},
		{"the older", nil, []edit{func(m *quota.Migration) { m.Created.Time = m.Created.AddDate(0, 0, 1) }}},
	}
	var errs []error
	for _, c := range counts {
		winner, loser, other := full(first), full(first), blocked(second)
		for _, e := range c.winner {
			e(&winner)
		}
		for _, e := range c.loser {
			e(&loser)
		}
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
			if err := l.Replace(c.ctx, c.namespace, copies(migrations)); !errors.Is(err, c.want) {
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
