package quota_test

import (
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// Of those that share a UID it is the same one that counts, in whatever order they are, and
// whatever they differ in.
func TestSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		s = s.contradicted(roll)
		want := quota.Sorted(s.migrations)
		for i := 1; i < len(want); i++ {
			require.Less(t, want[i-1].UID, want[i].UID, "not sorted, or a UID twice")
		}
		shuffled := s.shuffled(roll)
		if diff := gocmp.Diff(want, quota.Sorted(shuffled), byAmount); diff != "" {
			t.Fatalf("the order counts (-one +another): %s\nof\n%s", diff, s)
		}
	})
}

var byAmount = gocmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })

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
