package ledgertest

import (
	"context"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// sharesNothingWithInputs records migrations and then destroys the caller's copy.
func sharesNothingWithInputs(open opener) error {
	l := open()
	input := []quota.Migration{full(second), full(first)}
	if err := replace(l, tenant, input...); err != nil {
		return err
	}
	if diff := difference([]quota.Migration{full(first), full(second)}, []quota.Migration{input[1], input[0]}, bySpelling); diff != "" {
		return fmt.Errorf("Replace changed its argument, or the order in it (-before +after):\n%s", diff)
	}
	destroy(input)
	if err := expect(l, tenant, []quota.Migration{full(first), full(second)}, byAmount); err != nil {
		return fmt.Errorf("after the caller changed what it had given to Replace: %w", err)
	}
	return nil
}

// sharesNothingWithOutputs destroys what it has read, and reads again.
func sharesNothingWithOutputs(open opener) error {
	l := open()
	want := []quota.Migration{full(first), full(second)}
	if err := replace(l, tenant, copies(want)...); err != nil {
		return err
	}
	kept, err := l.Migrations(context.Background(), tenant)
	if err != nil {
		return err
	}
	for range 2 {
		read, err := l.Migrations(context.Background(), tenant)
		if err != nil {
			return err
		}
		destroy(read)
	}
	if err := expect(l, tenant, want, byAmount); err != nil {
		return fmt.Errorf("after a caller changed what Migrations had returned: %w", err)
	}
	if diff := difference(want, kept, byAmount); diff != "" {
		return fmt.Errorf("two results of Migrations share memory (-want +got):\n%s", diff)
	}
	return nil
}

// destroy overwrites all memory that migrations lead to, in place.
func destroy(migrations []quota.Migration) {
	for i := range migrations {
		m := &migrations[i]
		destroyList(m.Surge)
		destroyList(m.Held)
		destroyList(m.Growth)
		for j := range m.Shares {
			destroyList(m.Shares[j].Surge)
			destroyList(m.Shares[j].Held)
			m.Shares[j] = quota.Share{Traits: quota.Traits{PriorityClass: "destroyed"}}
		}
		*m = quota.Migration{UID: "destroyed"}
	}
}

func destroyList(l corev1.ResourceList) {
	for name, q := range l {
		// Copies of a quantity that is an inf.Dec inside share it, and AsDec returns it.
		q.AsDec().SetUnscaledBig(big.NewInt(42))
		l[name] = amount("43")
	}
	if l != nil {
		l["destroyed"] = amount("44")
	}
}
