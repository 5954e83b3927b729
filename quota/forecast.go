package quota

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Forecast is what one quota makes of migrations at its static limits, if nobody makes room.
type Forecast struct {
	// Refused are the migrations whose target pods quota may refuse, with what is missing in
	// the static limits at worst. Resources of which nothing is missing are absent.
	Refused map[types.UID]corev1.ResourceList
	// Enough are the lowest static limits, none below those that there are, at which quota
	// refuses none of them. It has the keys of static, in their formats.
	Enough corev1.ResourceList
}

// Foresee returns the forecast for migrations that all take place, at most parallel of them
// at the same time, in any order, while regular usage stays what it is. Static are the
// limits of the tenant (spec.hard), used is status.used, and migrations are those under this
// quota (see [Under]); their State does not matter, except that target pods of the charged
// ones are there already and cannot be refused.
//
// At worst, a target pod comes when all other VMs have grown by what they grow, and the
// parallel-1 other migrations with the greatest surge of a resource are charged. A parallel
// below one counts as one, a UID that is listed several times as in [Policy.Decide].
func Foresee(static corev1.ResourceList, migrations []Migration, used corev1.ResourceList, parallel int) Forecast {
	parallel = max(parallel, 1)
	migrations = distinct(migrations)
	t := newTally(static, used)
	for i := range migrations {
		if migrations[i].State >= Charged {
			t.charge(&migrations[i])
		}
	}
	f := Forecast{Refused: map[types.UID]corev1.ResourceList{}, Enough: corev1.ResourceList{}}
	maps.Copy(f.Enough, static.DeepCopy())
	for i := range t {
		t[i].foresee(&f, migrations, parallel)
	}
	return f
}

// foresee adds what the resource of l contributes to f.
func (l *line) foresee(f *Forecast, migrations []Migration, parallel int) {
	surges := make([]amount, len(migrations))
	grown := l.regular()
	for i := range migrations {
		surges[i] = amountOf(migrations[i].Surge[l.name])
		grown.add(amountOf(migrations[i].Growth[l.name]))
	}
	slices.SortFunc(surges, func(a, b amount) int { return b.cmp(a) })
	top := surges[:min(parallel, len(surges))]
	greatest, least := amount{}, amount{} // the sum of the parallel greatest surges; the least of these
	if len(top) == parallel {
		least = top[parallel-1]
	}
	for _, surge := range top {
		greatest.add(surge)
	}
	for i := range migrations {
		m := &migrations[i]
		surge := amountOf(m.Surge[l.name])
		if m.State >= Charged || surge.isZero() && amountOf(m.Growth[l.name]).isZero() {
			continue
		}
		peak := grown.plus(greatest) // if its own surge is one of these
		if surge.cmp(least) < 0 {
			peak = grown.plus(greatest.minus(least)).plus(surge)
		}
		missing := peak.minus(l.static)
		if missing.isZero() {
			continue
		}
		if f.Refused[m.UID] == nil {
			f.Refused[m.UID] = corev1.ResourceList{}
		}
		f.Refused[m.UID][l.name] = missing.in(l.format)
		if enough := amountOf(f.Enough[l.name]); peak.cmp(enough) > 0 {
			f.Enough[l.name] = peak.in(l.format)
		}
	}
}
