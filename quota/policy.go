package quota

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Effective returns what status.hard of a ResourceQuota must be now: its static
// limits (spec.hard), raised by the surge of the charged and the blocked migrations,
// and no lower than what regular workloads use already. It is the Hard of the zero
// [Policy]; see [Policy.Decide] for which migrations count.
//
// The result has exactly the keys of static and is never nil. A limit that is not
// raised keeps the spelling of static; a raised one is written canonically in the
// format of static (DecimalSI where that has none). A resource absent from used has no
// usage. Negative amounts count as zero, but an unraised negative limit is returned as it is.
func Effective(static corev1.ResourceList, migrations []Migration, used corev1.ResourceList) corev1.ResourceList {
	t := newTally(static, used)
	migrations = distinct(migrations)
	for i := range migrations {
		switch m := &migrations[i]; {
		case m.State >= Charged:
			t.charge(m)
		case m.State == Blocked:
			t.grant(m)
		}
	}
	return Policy{}.hard(static, t)
}

// A Policy says which migrations are granted their surge. The zero value grants
// every charged and every blocked migration, and is what most callers want.
type Policy struct {
	// Budget caps the surge that is granted at the same time, in ResourceQuota
	// names and units. An absent key, or a nil list, is no cap; a zero (or a
	// negative amount) grants nothing new. What is charged already stays granted
	// whatever the budget says, and uses it up.
	Budget corev1.ResourceList
	// Eager grants queued migrations too, which saves each of them one refusal, and costs
	// headroom that lies open until they start.
	Eager bool
	// Strict means that usage above static does not lift the limit. A migration
	// whose target pod would be refused for that reason is deferred.
	Strict bool
	// Lift caps how far regular usage above static lifts the limit, in ResourceQuota
	// names and units. A migration whose target pod would be refused because of usage above
	// it is deferred. An absent key, or a nil list, is no cap.
	Lift corev1.ResourceList
}

// Decide applies the rule to one quota: static are the limits that the tenant was
// given (spec.hard), used is status.used of the ResourceQuota, and migrations are those in
// flight under this quota (see [Under] for one that has scopes).
//
// A UID that is listed several times counts once: the one with the greatest State,
// and among those with the same State the one with the greater claim. The empty
// UID is one like any other. The order of migrations does not matter.
//
// Charged migrations are always granted. The others that ask for headroom (the
// blocked ones, with Eager also the queued ones) are granted in the order of
// Priority, Created and UID, as long as the budget lasts on every resource that
// they need. The first one that it does not last for stops all behind it, so that
// nobody is overtaken for ever; but one that could never be granted, because it
// alone is over the budget or because of Strict or Lift, holds nobody back.
//
// The lists of the result have exactly the keys of static and are never nil.
func (p Policy) Decide(static corev1.ResourceList, migrations []Migration, used corev1.ResourceList) Decision {
	t := newTally(static, used)
	migrations = distinct(migrations)
	granted := make([]types.UID, 0, len(migrations))
	var candidates []*Migration
	for i := range migrations {
		m := &migrations[i]
		switch {
		case m.State >= Charged:
			t.charge(m)
			granted = append(granted, m.UID)
		case m.State == Blocked || p.Eager:
			candidates = append(candidates, m)
		}
	}
	deferred := p.admit(t, candidates, &granted)
	slices.Sort(granted)
	return p.decision(static, t, granted, deferred)
}

// lifted returns the limit of l without any surge: static, or regular usage as far as the
// policy lets it lift the limit.
func (p Policy) lifted(l *line) amount {
	if p.Strict {
		return l.static
	}
	regular := l.regular()
	if lift, capped := p.Lift[l.name]; capped {
		regular = regular.min(amountOf(lift))
	}
	return l.static.max(regular)
}

// hard writes the effective limits of t.
func (p Policy) hard(static corev1.ResourceList, t tally) corev1.ResourceList {
	hard := make(corev1.ResourceList, len(t))
	for i := range t {
		l := &t[i]
		limit, surge := p.lifted(l), l.surge()
		if surge.isZero() && limit.cmp(l.static) == 0 {
			hard[l.name] = static[l.name].DeepCopy()
			continue
		}
		hard[l.name] = limit.plus(surge).in(l.format)
	}
	return hard
}
