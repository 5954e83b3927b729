package ledgertest

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// A step replaces the record of a namespace.
type step struct {
	Namespace  string
	Migrations []quota.Migration
}

// play carries out a schedule on l and on a plain map, and compares them after each
// step: what is recorded everywhere, and whether something was written.
func play(l ledger.Ledger, schedule []step) error {
	model := map[string][]quota.Migration{}
	for i, s := range schedule {
		want := countOnce(s.Migrations)
		changed := difference(model[s.Namespace], want, byAmount) != ""
		before, uncounted := writes(l)
		if err := replace(l, s.Namespace, copies(s.Migrations)...); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if after, _ := writes(l); uncounted == nil && (after > before) != changed {
			return fmt.Errorf("step %d: %d writes, but changed: %t", i, after-before, changed)
		}
		if changed {
			model[s.Namespace] = want
		}
		for _, namespace := range machineNamespaces {
			if err := expect(l, namespace, model[namespace], byAmount); err != nil {
				return fmt.Errorf("after step %d: %w", i, err)
			}
		}
	}
	return nil
}

// countOnce returns the most advanced one of those with the same UID, sorted by UID.
// There are none of the same state in a schedule: which of those counts is for
// duplicateOnce.
func countOnce(migrations []quota.Migration) []quota.Migration {
	var once []quota.Migration
	index := map[types.UID]int{}
	for _, m := range migrations {
		i, seen := index[m.UID]
		switch {
		case !seen:
			index[m.UID] = len(once)
			once = append(once, m)
		case m.State > once[i].State:
			once[i] = m
		}
	}
	slices.SortFunc(once, byUID)
	return once
}

var machineNamespaces = []string{"a", "b", "a-b"}

// schedules draws schedules in which a step often repeats an earlier one, or nearly
// does: with some migrations drawn anew, or with other spellings.
func schedules() *rapid.Generator[[]step] {
	return rapid.Custom(func(t *rapid.T) []step {
		schedule := make([]step, rapid.IntRange(1, 20).Draw(t, "steps"))
		for i := range schedule {
			s := &schedule[i]
			s.Namespace = rapid.SampledFrom(machineNamespaces).Draw(t, "namespace")
			if i > 0 && rapid.IntRange(0, 3).Draw(t, "again") > 0 {
				earlier := schedule[rapid.IntRange(0, i-1).Draw(t, "earlier")]
				s.Namespace, s.Migrations = earlier.Namespace, rapid.Permutation(copies(earlier.Migrations)).Draw(t, "order")
				retouch(t, s.Migrations)
				continue
			}
			s.Migrations = rapid.SliceOfNDistinct(migrations(), 0, 4, func(m quota.Migration) string {
				return fmt.Sprintf("%s %s", m.UID, m.State)
			}).Draw(t, "migrations")
		}
		return schedule
	})
}

// retouch changes migrations in place by nothing, a spelling, or one field.
func retouch(t *rapid.T, migrations []quota.Migration) {
	if len(migrations) == 0 {
		return
	}
	m := &migrations[rapid.IntRange(0, len(migrations)-1).Draw(t, "retouched")]
	switch rapid.IntRange(0, 12).Draw(t, "touch") {
	case 0, 1:
		respell(m.Surge)
		respell(m.Held)
		respell(m.Growth)
		m.Created.Time = m.Created.Truncate(time.Second).Add(time.Millisecond)
	case 2:
		m.Surge = lists().Draw(t, "surge")
	case 3:
		m.Held = lists().Draw(t, "held")
	case 4:
		m.Priority++
	case 5:
		m.Shares = shares().Draw(t, "shares")
	case 6:
		if m.Held == nil {
			m.Held = list()
		} else {
			m.Held = nil
		}
	case 7:
		m.Growth = lists().Draw(t, "growth")
	case 8:
		m.Node += "x"
	case 9:
		m.Over = !m.Over
	case 10:
		m.RefusedBy += "x"
	case 11:
		// The state, unless that makes two of the same UID the same.
		for _, other := range migrations {
			if other.UID == m.UID && other.State == quota.Charged {
				return
			}
		}
		m.State = quota.Charged
	}
}

// respell writes the amounts of l in decimals, or in decimals with an exponent.
func respell(l corev1.ResourceList) {
	for name, q := range l {
		q = q.DeepCopy()
		q.Add(resource.Quantity{}) // drops the spelling
		if q.Format == resource.DecimalSI {
			q.Format = resource.DecimalExponent
		} else {
			q.Format = resource.DecimalSI
		}
		l[name] = q
	}
}

func migrations() *rapid.Generator[quota.Migration] {
	return rapid.Custom(func(t *rapid.T) quota.Migration {
		m := quota.Migration{
			UID:       types.UID(rapid.SampledFrom([]string{"1", "2", "3", ""}).Draw(t, "UID")),
			VMI:       rapid.SampledFrom([]string{"", "vm"}).Draw(t, "VMI"),
			State:     rapid.SampledFrom([]quota.State{quota.Queued, quota.Blocked, quota.Charged}).Draw(t, "state"),
			Surge:     lists().Draw(t, "surge"),
			Held:      lists().Draw(t, "held"),
			Priority:  rapid.Int32Range(-1, 1).Draw(t, "priority"),
			Growth:    lists().Draw(t, "growth"),
			Node:      rapid.SampledFrom([]string{"", "node"}).Draw(t, "node"),
			Over:      rapid.Bool().Draw(t, "over"),
			RefusedBy: rapid.SampledFrom([]string{"", "q"}).Draw(t, "refused by"),
		}
		if rapid.Bool().Draw(t, "created") {
			m.Created = metav1.NewTime(moment.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond))
		}
		if rapid.Bool().Draw(t, "shared") {
			m.Shares = shares().Draw(t, "shares")
		}
		return m
	})
}

func shares() *rapid.Generator[[]quota.Share] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) quota.Share {
		return quota.Share{
			Traits: quota.Traits{
				Terminating:   rapid.Bool().Draw(t, "terminating"),
				PriorityClass: rapid.SampledFrom([]string{"", "high"}).Draw(t, "class"),
			},
			Surge: lists().Draw(t, "surge"),
			Held:  lists().Draw(t, "held"),
		}
	}), 0, 2)
}

func lists() *rapid.Generator[corev1.ResourceList] {
	return rapid.Custom(func(t *rapid.T) corev1.ResourceList {
		if rapid.Bool().Draw(t, "nil") {
			return nil
		}
		l := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{"limits.memory", "pods"} {
			if s := rapid.SampledFrom(machineAmounts).Draw(t, string(name)); s != "" {
				l[name] = amount(s)
			}
		}
		return l
	})
}

// machineAmounts have the same amount in several spellings. The empty one is none.
var machineAmounts = []string{
	"", "0", "1", "1000m", "4952Mi", "5192548352", "1e3", "-1", "9223372036854775807", "12345678901234567890", "12345678901234567890000m", "100E",
}
