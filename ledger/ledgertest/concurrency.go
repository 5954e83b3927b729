package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

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
