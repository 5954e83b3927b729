package quota

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// admit grants the candidates that the policy lets in: their surge goes into t,
// their UIDs into granted. It returns the others.
func (p Policy) admit(t tally, candidates []*Migration, granted *[]types.UID) []Deferral {
	cs := p.checks(t)
	if len(cs) > 0 {
		slices.SortFunc(candidates, func(a, b *Migration) int { return ByTurn(*a, *b) })
	}
	var deferred []Deferral
	for _, m := range candidates {
		reason, missing := cs.refuse(m)
		if reason == "" {
			t.grant(m)
			cs.take(m)
			*granted = append(*granted, m.UID)
			continue
		}
		if reason == BudgetUsed {
			cs.queue(m) // and nobody overtakes it
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

// A check is what the policy holds against the claims on one resource.
type check struct {
	name   corev1.ResourceName
	format resource.Format
	above  amount // regular usage that does not lift the limit
	capped bool   // whether there is a budget
	budget amount
	taken  amount // of the budget, by the charged and the granted
	queued amount // for the budget, by those that wait for it
}

type checks []check

// checks returns what p limits, given the charged migrations in t.
func (p Policy) checks(t tally) checks {
	if len(p.Budget) == 0 && len(p.Lift) == 0 && !p.Strict {
		return nil
	}
	cs := make(checks, 0, len(t))
	for i := range t {
		l := &t[i]
		c := check{name: l.name, format: l.format, above: l.regular().minus(p.lifted(l))}
		if budget, ok := p.Budget[l.name]; ok {
			c.capped, c.budget, c.taken = true, amountOf(budget), l.surge()
		}
		if c.capped || !c.above.isZero() {
			cs = append(cs, c)
		}
	}
	return cs
}

// refuse returns why m is not granted, and what is missing; "" if it is.
func (cs checks) refuse(m *Migration) (DeferralReason, corev1.ResourceList) {
	if missing := cs.missing(m, check.overBudget); missing != nil {
		return BudgetExceeded, missing
	}
	if missing := cs.missing(m, check.overStatic); missing != nil {
		return RegularAboveStatic, missing
	}
	if missing := cs.missing(m, check.overRest); missing != nil {
		return BudgetUsed, missing
	}
	return "", nil
}

// missing returns what m lacks by one measure, nil if nothing.
func (cs checks) missing(m *Migration, lack func(check, amount) amount) corev1.ResourceList {
	var missing corev1.ResourceList
	for _, c := range cs {
		if a := lack(c, amountOf(m.Surge[c.name])); !a.isZero() {
			if missing == nil {
				missing = corev1.ResourceList{}
			}
			missing[c.name] = a.in(c.format)
		}
	}
	return missing
}

func (c check) overBudget(surge amount) amount {
	if !c.capped {
		return amount{}
	}
	return surge.minus(c.budget)
}

func (c check) overStatic(surge amount) amount {
	if surge.isZero() {
		return amount{}
	}
	return c.above
}

// overRest is what the budget lacks for surge and for all that wait already. So while
// anybody waits it is not zero.
func (c check) overRest(surge amount) amount {
	wanted := c.queued.plus(surge)
	if !c.capped || wanted.isZero() {
		return amount{}
	}
	return c.taken.plus(wanted).minus(c.budget)
}

// take counts m among the granted ones.
func (cs checks) take(m *Migration) {
	for i := range cs {
		cs[i].taken.add(amountOf(m.Surge[cs[i].name]))
	}
}

// queue counts m among those that wait for the budget.
func (cs checks) queue(m *Migration) {
	for i := range cs {
		cs[i].queued.add(amountOf(m.Surge[cs[i].name]))
	}
}
