package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// namespacesIsolated records the same UID in namespaces with names that a store may
// confuse. All are legal: DNS labels.
func namespacesIsolated(open opener) error {
	namespaces := []string{
		"a", "b", "a-b", "a--b", "0", "default", "kube-system", "ledger", "headroom",
		strings.Repeat("n", 62), strings.Repeat("n", 63), strings.Repeat("n", 62) + "m",
	}
	l := open()
	want := map[string][]quota.Migration{}
	for _, namespace := range namespaces {
		m := full(first)
		m.VMI = "in " + namespace
		want[namespace] = []quota.Migration{m}
		if err := replace(l, namespace, copies(want[namespace])...); err != nil {
			return err
		}
	}
	for i := range namespaces {
		for _, namespace := range namespaces {
			if err := expect(l, namespace, want[namespace], byAmount); err != nil {
				return err
			}
		}
		want[namespaces[i]] = nil
		if err := replace(l, namespaces[i]); err != nil {
			return err
		}
	}
	return nil
}

func emptyNamespaceIsRefused(open opener) error {
	l := open()
	for _, migrations := range [][]quota.Migration{nil, {blocked(first)}} {
		if err := l.Replace(context.Background(), "", migrations); !errors.Is(err, ledger.ErrNoNamespace) {
			return fmt.Errorf("Replace(\"\") = %w, want ledger.ErrNoNamespace", err)
		}
		got, err := l.Migrations(context.Background(), "")
		if !errors.Is(err, ledger.ErrNoNamespace) {
			return fmt.Errorf("Migrations(\"\") = %w, want ledger.ErrNoNamespace", err)
		}
		if len(got) > 0 {
			return errors.New("Migrations(\"\") returned migrations beside its error")
		}
	}
	return nil
}

// doneContext calls a ledger with contexts that are done, both where there is
// something to write and where there is not.
func doneContext(open opener) error {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithDeadline(context.Background(), moment.AddDate(-1000, 0, 0))
	defer cancel()

	l := open()
	if err := record(l, full(first)); err != nil {
		return err
	}
	before, counted := writes(l)
	for _, ctx := range []context.Context{cancelled, expired} {
		for _, migrations := range [][]quota.Migration{{full(first)}, {blocked(second)}, nil} {
			if err := l.Replace(ctx, tenant, migrations); !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("Replace = %w, want the context's error: %w", err, ctx.Err())
			}
			got, err := l.Migrations(ctx, tenant)
			if !errors.Is(err, ctx.Err()) {
				return fmt.Errorf("Migrations = %w, want the context's error: %w", err, ctx.Err())
			}
			if len(got) > 0 {
				return errors.New("Migrations returned migrations beside the context's error")
			}
		}
	}
	if after, err := writes(l); counted == nil && (err != nil || after != before) {
		return fmt.Errorf("Replace made %d writes although its context was done", after-before)
	}
	return expect(l, tenant, []quota.Migration{full(first)}, byAmount)
}
