// Package spelling writes quantities so that they are read again as they were, and reads
// those that nobody vouches for.
package spelling

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Exact returns q so spelled that it is read with the same value. Parsing caps a quantity
// with a binary suffix at the greatest int64, but not a decimal one; unless that would
// happen, the spelling is that of q. The result shares no memory with q.
func Exact(q resource.Quantity) resource.Quantity {
	q = q.DeepCopy()
	if read, err := resource.ParseQuantity(q.String()); err == nil && read.Cmp(q) == 0 {
		return q
	}
	decimal := resource.Quantity{}
	decimal.Add(q)
	decimal.Format = resource.DecimalSI
	return decimal
}

// Parse is resource.ParseQuantity for texts that anybody may have written. That takes
// exponents of up to nine digits, and comparing such an amount would not end.
func Parse(text string) (resource.Quantity, error) {
	const longest = 64
	if len(text) > longest {
		return resource.Quantity{}, fmt.Errorf("more than %d characters", longest)
	}
	if i := strings.LastIndexAny(text, "eE"); i >= 0 && len(strings.TrimLeft(text[i+1:], "+-0")) > 2 {
		return resource.Quantity{}, errors.New("the exponent is out of range")
	}
	return resource.ParseQuantity(text)
}
