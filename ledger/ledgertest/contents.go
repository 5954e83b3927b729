package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
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

// sharesNothing records migrations and destroys the caller's copy and one result, and expects
// that another result and the record are as they were.
func sharesNothing(open opener) error {
	l := open()
	want, input := []quota.Migration{full(first), full(second)}, []quota.Migration{full(second), full(first)}
	if err := replace(l, tenant, input); err != nil {
		return err
	}
	if diff := difference(want, []quota.Migration{input[1], input[0]}, bySpelling); diff != "" {
		return fmt.Errorf("Replace changed its argument, or the order in it (-before +after):\n%s", diff)
	}
	destroy(input)
	one, err := l.Migrations(context.Background(), tenant)
	two, err2 := l.Migrations(context.Background(), tenant)
	destroy(one)
	if diff := difference(want, two, byAmount); diff != "" {
		err = errors.Join(err, fmt.Errorf("a result of Migrations shares memory with another, or with what Replace was given (-want +got):\n%s", diff))
	}
	return errors.Join(err, err2, expect(l, tenant, want, byAmount))
}

// destroy overwrites all memory that migrations lead to, in place.
func destroy(migrations []quota.Migration) {
	for i := range migrations {
		m := &migrations[i]
		destroyLists(m.Surge, m.Held, m.Growth)
		for j := range m.Shares {
			destroyLists(m.Shares[j].Surge, m.Shares[j].Held)
			m.Shares[j] = quota.Share{Traits: quota.Traits{PriorityClass: "destroyed"}}
		}
		*m = quota.Migration{UID: "destroyed"}
	}
}

func destroyLists(lists ...corev1.ResourceList) {
	for _, l := range lists {
		for name, q := range l {
			// Copies of a quantity that is an inf.Dec inside share it, and AsDec returns it.
			q.AsDec().SetUnscaledBig(big.NewInt(42))
			l[name] = amount("43")
		}
		if l != nil {
			l["destroyed"] = amount("44")
		}
	}
}

const (
	writers = 16
	rounds  = 8
)

// concurrentWriters has writers that share a namespace, and each of which has another
// one to itself. Whatever anybody reads must be what somebody wrote, whole. A data
// race beside that is for the race detector to find.
func concurrentWriters(open opener) error {
	l := open()
	errs := make([]error, writers)
	var group sync.WaitGroup
	for w := range writers {
		group.Add(1)
		go func() {
			defer group.Done()
			for round := range rounds {
				own, team := fmt.Sprintf("tenant-%d", w), teamOf(w, round)
				errs[w] = errors.Join(errs[w], replace(l, tenant, team), replace(l, own, team),
					expect(l, own, team, byAmount), expectWhole(l))
			}
		}()
	}
	group.Wait()
	for w := range writers {
		errs = append(errs, expect(l, fmt.Sprintf("tenant-%d", w), teamOf(w, rounds-1), byAmount))
	}
	return errors.Join(append(errs, expectWhole(l))...)
}

// teamOf returns the migrations that w writes in a round. They say so in the VMI.
// The UIDs are partly those of other writers' teams.
func teamOf(w, round int) []quota.Migration {
	team := []quota.Migration{full(first), full(second), blocked(types.UID(fmt.Sprint("of-", w%4))), blocked("z")}
	for i := range team {
		team[i].VMI = fmt.Sprintf("%d/%d", w, round)
	}
	return team
}

// expectWhole reads the shared namespace and expects one team.
func expectWhole(l ledger.Ledger) error {
	got, err := l.Migrations(context.Background(), tenant)
	if err != nil {
		return err
	}
	if len(got) == 0 {
		return errors.New("no migrations, where every writer wrote some")
	}
	var w, round int
	if _, err := fmt.Sscanf(got[0].VMI, "%d/%d", &w, &round); err != nil {
		return fmt.Errorf("VMI %q, which nobody wrote: %w", got[0].VMI, err)
	}
	if diff := difference(teamOf(w, round), got, byAmount); diff != "" {
		return fmt.Errorf("a record that nobody wrote as a whole (-written by %d in round %d +read):\n%s", w, round, diff)
	}
	return nil
}
