package quota

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A tally adds up one quota, resource by resource.
type tally []line

// A line is one resource of the quota. Its lists are looked up once; what the
// migrations claim is added up in place.
type line struct {
	name   corev1.ResourceName
	format resource.Format // of the results
	static amount
	used   amount

	held    amount // by the charged migrations that say how much
	charged amount // surge of those
	whole   amount // surge of the charged migrations that hold all of it
	granted amount // surge of the others that are granted

	above  amount // regular usage that does not lift the limit
	capped bool   // whether there is a budget
	budget amount
	queued amount // for the budget, by those that wait for it
}

func newTally(static, used corev1.ResourceList) tally {
	t := make(tally, 0, len(static))
	for name, limit := range static {
		t = append(t, line{name: name, format: formatOf(limit), static: amountOf(limit), used: amountOf(used[name])})
	}
	return t
}

// charge adds what a charged migration claims and holds.
func (t tally) charge(m *Migration) {
	for i := range t {
		l := &t[i]
		surge := amountOf(m.Surge[l.name])
		if m.Held == nil {
			l.whole.add(surge)
			continue
		}
		l.charged.add(surge)
		l.held.add(amountOf(m.Held[l.name]).min(surge))
	}
}

// grant adds what a migration that holds nothing claims.
func (t tally) grant(m *Migration) {
	for i := range t {
		l := &t[i]
		l.granted.add(amountOf(m.Surge[l.name]))
	}
}

// temporary is what of used the migrations hold.
func (l *line) temporary() amount { return l.held.plus(l.whole) }

// regular is what of used they do not hold. Usage may lag behind the pods that
// they are read from, so it is never less than zero.
func (l *line) regular() amount { return l.used.minus(l.temporary()) }

// surge is that of all granted migrations, the charged included.
func (l *line) surge() amount { return l.charged.plus(l.whole).plus(l.granted) }
