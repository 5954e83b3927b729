package quota

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// admit grants the candidates that the policy lets in: their surge goes into t,
// their UIDs into granted. It returns the others.
func (p Policy) admit(t tally, candidates []*Migration, granted *[]types.UID) []Deferral {
	if len(p.Budget) > 0 || len(p.Lift) > 0 || p.Strict {
		slices.SortFunc(candidates, func(a, b *Migration) int { return ByTurn(*a, *b) })
		for i := range t {
			l := &t[i]
			budget, capped := p.Budget[l.name]
			l.above, l.budget, l.capped = l.regular().minus(p.lifted(l)), amountOf(budget), capped
		}
	}
	var deferred []Deferral
	for _, m := range candidates {
		reason, missing := t.refuse(m)
		switch reason {
		case "":
			t.grant(m)
			*granted = append(*granted, m.UID)
			continue
		case BudgetUsed: // and nobody overtakes it
			for i := range t {
				t[i].queued.add(amountOf(m.Surge[t[i].name]))
			}
		default: // others may overtake it
		}
		deferred = append(deferred, Deferral{UID: m.UID, Reason: reason, Missing: missing})
	}
	return deferred
}

// ByTurn orders the migrations that wait, as [Policy.Decide] does and KubeVirt: it is
// negative if a is granted before b. The order is that of Priority (higher first), Created
// (older first) and UID.
func ByTurn(a, b Migration) int {
	return cmp.Or(
		cmp.Compare(b.Priority, a.Priority),
		a.Created.Compare(b.Created.Time),
		cmp.Compare(a.UID, b.UID),
	)
}

// refuse returns why m is not granted, and what is missing; "" if it is.
func (t tally) refuse(m *Migration) (DeferralReason, corev1.ResourceList) {
	if missing := t.missing(m, (*line).overBudget); missing != nil {
		return BudgetExceeded, missing
	}
	if missing := t.missing(m, (*line).overStatic); missing != nil {
		return RegularAboveStatic, missing
	}
	if missing := t.missing(m, (*line).overRest); missing != nil {
		return BudgetUsed, missing
	}
	return "", nil
}

// missing returns what m lacks by one measure, nil if nothing.
func (t tally) missing(m *Migration, lack func(l *line, surge amount) amount) corev1.ResourceList {
	var missing corev1.ResourceList
	for i := range t {
		l := &t[i]
		if a := lack(l, amountOf(m.Surge[l.name])); !a.isZero() {
			if missing == nil {
				missing = corev1.ResourceList{}
			}
			missing[l.name] = a.in(l.format)
		}
	}
	return missing
}

func (l *line) overBudget(surge amount) amount {
	if !l.capped {
		return amount{}
	}
	return surge.minus(l.budget)
}

func (l *line) overStatic(surge amount) amount {
	if surge.isZero() {
		return amount{}
	}
	return l.above
}

// overRest is what the budget lacks for surge and for all that wait already. So while
// anybody waits it is not zero.
func (l *line) overRest(surge amount) amount {
	if !l.capped {
		return amount{}
	}
	wanted := l.queued.plus(surge)
	if wanted.isZero() {
		return amount{}
	}
	return l.surge().plus(wanted).minus(l.budget)
}
