package quota_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

func TestByTurn(t *testing.T) {
	at := func(s int) metav1.Time { return metav1.Unix(int64(1700000000+s), 0) }
	inOrder := []quota.Migration{
		{UID: "z", Priority: 2, Created: at(9)},
		{UID: "y", Priority: 1},
		{UID: "x", Priority: 1, Created: at(1)},
		{UID: "a", Priority: 1, Created: at(2)},
		{UID: "b", Priority: 1, Created: at(2)},
		{UID: "c", Priority: 1, Created: metav1.Time{Time: at(2).Add(time.Nanosecond)}},
		{UID: "", Priority: -1, Created: at(0)},
	}
	for i, a := range inOrder {
		for j, b := range inOrder {
			require.Equal(t, i < j, quota.ByTurn(a, b) < 0, "%s, %s", a.UID, b.UID)
			require.Equal(t, i == j, quota.ByTurn(a, b) == 0, "%s, %s", a.UID, b.UID)
		}
	}
}

// The migrations that wait are granted by turn.
func TestByTurnIsTheOrderOfDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := queues.Draw(t, "scenario").distinct()
		byUID := map[types.UID]quota.Migration{}
		for _, m := range s.migrations {
			byUID[m.UID] = m
		}
		deferred := s.decide().Deferred
		for i := 1; i < len(deferred); i++ {
			if quota.ByTurn(byUID[deferred[i-1].UID], byUID[deferred[i].UID]) >= 0 {
				t.Fatalf("%v is not by turn in\n%s", deferred, s)
			}
		}
	})
}

// Of those that share a UID it is the same one that counts, in whatever order they are, and
// whatever they differ in.
func TestSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		for _, m := range s.migrations[:min(8, len(s.migrations))] {
			other := roll.migration(m.UID, s.regime, s.names)
			switch roll(11) {
			case 1:
				m.VMI = "other"
			case 2:
				m.Surge = other.Surge
			case 3:
				m.Held = other.Held
			case 4:
				m.Priority = other.Priority
			case 5:
				m.Created = other.Created
			case 6:
				m.Node = other.Node
			case 7:
				m.Over = other.Over
			case 10:
				m.RefusedBy = "other"
			case 8:
				m.Growth = other.Growth
			case 9:
				m.Shares = other.Shares
			}
			s.migrations = append(s.migrations, m)
		}
		want := quota.Sorted(s.migrations)
		if !slices.IsSortedFunc(want, func(a, b quota.Migration) int {
			if a.UID < b.UID {
				return -1
			}
			return 1 // also if it is the same
		}) {
			t.Fatalf("not sorted, or a UID twice, in\n%s", s)
		}
		shuffled := slices.Clone(s.migrations)
		rand.New(rand.NewPCG(uint64(roll(1<<31)), 0)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if diff := gocmp.Diff(asRead(want), asRead(quota.Sorted(shuffled)), gocmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })); diff != "" {
			t.Fatalf("the order counts (-one +another): %s\nof\n%s", diff, s)
		}
	})
}

// asRead leaves out in what migrations may differ all the same: spelling, whether a Surge or
// a Growth is nil, and what is zero in a share.
func asRead(migrations []quota.Migration) []quota.Migration {
	for i := range migrations {
		m := &migrations[i]
		m.Created.Time = m.Created.UTC()
		m.Surge, m.Growth = notNil(m.Surge), notNil(m.Growth)
		for j, share := range m.Shares {
			m.Shares[j].Surge = notNil(withoutZero(withoutNegative(share.Surge)))
			m.Shares[j].Held = withoutZero(withoutNegative(share.Held))
		}
	}
	return migrations
}

func TestDeepCopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		equal := triplets.Draw(t, "equal scenarios")
		var copies []quota.Migration
		for _, m := range equal[0].migrations {
			copies = append(copies, m.DeepCopy())
		}
		if !slices.EqualFunc(copies, equal[1].migrations, sameMigration) {
			t.Fatalf("a copy differs: %s", gocmp.Diff(equal[1].migrations, copies, exactly))
		}
		spoilMigrations(copies)
		if !slices.EqualFunc(equal[0].migrations, equal[1].migrations, sameMigration) {
			t.Fatalf("a copy shares memory with\n%s", equal[1])
		}
	})
}
