package quota

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sorted returns migrations sorted by UID, each UID once: of several with the same UID
// the one that counts, as [Policy.Decide] says. The result shares no memory with
// migrations; it is nil if there are none.
func Sorted(migrations []Migration) []Migration {
	var sorted []Migration
	for _, m := range distinct(migrations) {
		sorted = append(sorted, m.DeepCopy())
	}
	slices.SortFunc(sorted, func(a, b Migration) int { return cmp.Compare(a.UID, b.UID) })
	return sorted
}

// distinct returns migrations with each UID once: the most advanced one of those that share
// it. Where no UID repeats it returns migrations itself.
func distinct(migrations []Migration) []Migration {
	if ascending(migrations) || !repeats(migrations) {
		return migrations
	}
	kept := make([]Migration, 0, len(migrations))
	index := make(map[types.UID]int, len(migrations))
	for i := range migrations {
		m := &migrations[i]
		j, seen := index[m.UID]
		switch {
		case !seen:
			index[m.UID] = len(kept)
			kept = append(kept, *m)
		case outranks(m, &kept[j]):
			kept[j] = *m
		}
	}
	return kept
}

// ascending reports whether the UIDs are in strictly ascending order, as a ledger
// returns them. Then none repeats.
func ascending(migrations []Migration) bool {
	for i := 1; i < len(migrations); i++ {
		if migrations[i-1].UID >= migrations[i].UID {
			return false
		}
	}
	return true
}

// repeats reports whether any UID is there twice.
func repeats(migrations []Migration) bool {
	uids := make([]types.UID, len(migrations))
	for i := range migrations {
		uids[i] = migrations[i].UID
	}
	slices.Sort(uids)
	return len(slices.Compact(uids)) < len(migrations)
}

// outranks reports whether a counts rather than b, which has the same UID. In the end it
// compares all that they say, so that the order in which they are listed never decides.
func outranks(a, b *Migration) bool {
	return cmp.Or(
		cmp.Compare(a.State, b.State),
		compareLists(a.Surge, b.Surge),
		compareHeld(a.Held, b.Held),
		compareLists(a.Growth, b.Growth),
		cmp.Compare(a.Priority, b.Priority),
		b.Created.Compare(a.Created.Time),
		cmp.Compare(spelled(*a), spelled(*b)),
	) > 0
}

// spelled returns m as text, but for the time, which not all years have as JSON.
func spelled(m Migration) string {
	m.Created = metav1.Time{}
	text, _ := json.Marshal(m) // strings, numbers and quantities
	return string(text)
}

// compareHeld puts nil, which is all of the surge of a charged migration, above any
// list.
func compareHeld(a, b corev1.ResourceList) int {
	switch {
	case a == nil && b != nil:
		return 1
	case a != nil && b == nil:
		return -1
	default:
		return compareLists(a, b)
	}
}

// compareLists compares by the first resource, in the order of names, on which a and
// b differ as the rule reads them: absent and negative amounts are zero.
func compareLists(a, b corev1.ResourceList) int {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(names)
	for _, name := range names {
		if c := amountOf(a[name]).cmp(amountOf(b[name])); c != 0 {
			return c
		}
	}
	return 0
}
