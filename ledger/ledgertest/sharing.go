package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

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
