package quota

import (
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota/amounts"
)

// An amount is a non-negative quantity that is safe to copy and to add to. An inf.Dec, which
// copies of a big resource.Quantity share, is written to only by the amount that made it, and
// not after that amount was copied. So what is added up in place (add) is copied only when it
// is complete.
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
func (a *amount) add(b amount) { a.q.Add(b.q) }

func (a amount) plus(b amount) amount  { return amount{amounts.Plus(a.q, b.q)} }
func (a amount) minus(b amount) amount { return amount{amounts.Minus(a.q, b.q)} } // not below zero
func (a amount) min(b amount) amount   { return amount{amounts.Min(a.q, b.q)} }
func (a amount) max(b amount) amount   { return amount{amounts.Max(a.q, b.q)} }
func (a amount) cmp(b amount) int      { return a.q.Cmp(b.q) }
func (a amount) isZero() bool          { return a.q.Sign() == 0 }

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
