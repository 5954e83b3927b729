// Package amounts is arithmetic with quantities and lists of them. No function changes its
// arguments, and no result shares memory with them, as copies of a resource.Quantity may.
package amounts

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Plus returns a + b, in the format of a.
func Plus(a, b resource.Quantity) resource.Quantity {
	sum := a.DeepCopy()
	sum.Add(b)
	return sum
}

// Minus returns a - b, or zero if b is greater.
func Minus(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) <= 0 {
		return resource.Quantity{Format: a.Format}
	}
	difference := a.DeepCopy()
	difference.Sub(b)
	return difference
}

// Min returns the lesser of a and b; a if they are equal.
func Min(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) > 0 {
		a = b
	}
	return a.DeepCopy()
}

// Max returns the greater of a and b; a if they are equal.
func Max(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) < 0 {
		a = b
	}
	return a.DeepCopy()
}

// Each combines a and b, resource by resource of a. Where b has none it counts as zero.
func Each(a, b corev1.ResourceList, combine func(a, b resource.Quantity) resource.Quantity) corev1.ResourceList {
	combined := make(corev1.ResourceList, len(a))
	for name, q := range a {
		combined[name] = combine(q, b[name])
	}
	return combined
}

// Exceeds reports whether any amount of a is above that of b, where an absent one is zero.
func Exceeds(a, b corev1.ResourceList) bool {
	for name, q := range a {
		if q.Cmp(b[name]) > 0 {
			return true
		}
	}
	return false
}

// Names returns the names in list, sorted.
func Names(list corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(list)) }

// Text returns list as name=amount, sorted by name, with separator in between.
func Text(list corev1.ResourceList, separator string) string {
	var parts []string
	for _, name := range Names(list) {
		q := list[name].DeepCopy()
		parts = append(parts, string(name)+"="+q.String())
	}
	return strings.Join(parts, separator)
}
