package quota

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// An amount is a non-negative quantity that is safe to copy and to add to.
//
// resource.Quantity is neither: Add changes its receiver, Cmp and String may
// rewrite it, and copies of a big one share an inf.Dec. The methods below keep to
// two rules: an inf.Dec is written to only by the amount that made it, and not
// after that amount was copied. So what is added up in place (add) is copied only
// when it is complete.
type amount struct {
	q resource.Quantity
}

// amountOf returns q, or zero if q is negative. It shares q's inf.Dec, which no
// method writes to.
func amountOf(q resource.Quantity) amount {
	if q.Sign() <= 0 {
		return amount{}
	}
	return amount{q}
}

// add adds b to a in place.
func (a *amount) add(b amount) {
	a.q.Add(b.q)
}

// plus returns a + b.
func (a amount) plus(b amount) amount {
	var sum amount
	sum.add(a)
	sum.add(b)
	return sum
}

// minus returns a - b, or zero if b is greater.
func (a amount) minus(b amount) amount {
	if a.cmp(b) <= 0 {
		return amount{}
	}
	difference := resource.Quantity{}
	difference.Add(a.q)
	difference.Sub(b.q)
	return amount{difference}
}

func (a amount) min(b amount) amount {
	if a.cmp(b) <= 0 {
		return a
	}
	return b
}

func (a amount) max(b amount) amount {
	if a.cmp(b) >= 0 {
		return a
	}
	return b
}

func (a amount) cmp(b amount) int { return a.q.Cmp(b.q) }

func (a amount) isZero() bool { return a.q.Sign() == 0 }

// in returns a as a quantity of its own in format, spelled canonically.
func (a amount) in(format resource.Format) resource.Quantity {
	if a.isZero() {
		return resource.Quantity{Format: format}
	}
	q := resource.Quantity{}
	q.Add(a.q) // makes an inf.Dec of its own, and drops the cached spelling
	q.Format = format
	return q
}

// formatOf returns the format in which a result for the limit q is written.
func formatOf(q resource.Quantity) resource.Format {
	if q.Format == "" {
		return resource.DecimalSI
	}
	return q.Format
}

func copyList(list corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		return nil
	}
	c := make(corev1.ResourceList, len(list))
	for name, q := range list {
		c[name] = q.DeepCopy()
	}
	return c
}
