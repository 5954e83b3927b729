package ledgertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/api/resource"

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
	want = slices.SortedFunc(slices.Values(want), byUID)
	return cmp.Diff(want, got, recorded, quantities)
}

func byUID(a, b quota.Migration) int { return strings.Compare(string(a.UID), string(b.UID)) }

// replace is Replace with an error that says where it came from.
func replace(l ledger.Ledger, namespace string, migrations ...quota.Migration) error {
	if err := l.Replace(context.Background(), namespace, migrations); err != nil {
		return fmt.Errorf("Replace(%q): %w", namespace, err)
	}
	return nil
}

// record replaces the tenant's by copies of migrations and expects to read them.
func record(l ledger.Ledger, migrations ...quota.Migration) error {
	if err := replace(l, tenant, copies(migrations)...); err != nil {
		return err
	}
	return expect(l, tenant, migrations, byAmount)
}

// copies returns migrations without any memory that a ledger could write to, or keep.
func copies(migrations []quota.Migration) []quota.Migration {
	c := make([]quota.Migration, len(migrations))
	for i, m := range migrations {
		c[i] = m.DeepCopy()
	}
	return c
}

// writes returns how many writes l has made, or errNotCounter.
func writes(l ledger.Ledger) (int, error) {
	counter, ok := l.(Counter)
	if !ok {
		return 0, errNotCounter
	}
	return counter.Writes(), nil
}
