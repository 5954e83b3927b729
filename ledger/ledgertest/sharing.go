package ledgertest

import (
	"context"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// sharesNothing records migrations and destroys the caller's copy, then destroys what it has
// read, and reads again.
func sharesNothing(open opener) error {
	l, ctx := open(), context.Background()
	want := []quota.Migration{full(first), full(second)}
	input := []quota.Migration{full(second), full(first)}
	if err := l.Replace(ctx, tenant, input); err != nil {
		return err
	}
	if diff := difference(want, []quota.Migration{input[1], input[0]}, bySpelling); diff != "" {
		return fmt.Errorf("Replace changed its argument, or the order in it (-before +after):\n%s", diff)
	}
	destroy(input)
	kept, err := l.Migrations(ctx, tenant)
	if err != nil {
		return err
	}
	for range 2 {
		if err := expect(l, tenant, want, byAmount); err != nil {
			return fmt.Errorf("after the caller changed what it had given to Replace, or read: %w", err)
		}
		read, err := l.Migrations(ctx, tenant)
		if err != nil {
			return err
		}
		destroy(read)
	}
	if diff := difference(want, kept, byAmount); diff != "" {
		return fmt.Errorf("two results of Migrations share memory (-want +got):\n%s", diff)
	}
	return expect(l, tenant, want, byAmount)
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
