package applier

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The functions below return quantities and lists of their own: no inf.Dec inside of
// them is one of an argument.

// each combines a and b, resource by resource of a. Where b has none it counts as zero.
func each(a, b corev1.ResourceList, combine func(a, b resource.Quantity) resource.Quantity) corev1.ResourceList {
	combined := make(corev1.ResourceList, len(a))
	for name, q := range a {
		combined[name] = combine(q, b[name])
	}
	return combined
}

func plus(a, b resource.Quantity) resource.Quantity {
	sum := a.DeepCopy()
	sum.Add(b)
	return sum
}

// minus is a - b, or zero if b is greater.
func minus(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) <= 0 {
		return resource.Quantity{Format: a.Format}
	}
	difference := a.DeepCopy()
	difference.Sub(b)
	return difference
}

func least(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) <= 0 {
		return a.DeepCopy()
	}
	return b.DeepCopy()
}

func most(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) >= 0 {
		return a.DeepCopy()
	}
	return b.DeepCopy()
}

// exceeds reports whether any limit of a is above that of b.
func exceeds(a, b corev1.ResourceList) bool {
	for name, q := range a {
		if q.Cmp(b[name]) > 0 {
			return true
		}
	}
	return false
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

// text is list for people, without what is zero.
func text(list corev1.ResourceList) string {
	var parts []string
	for _, name := range sortedNames(list) {
		if q := list[name]; q.Sign() != 0 {
			parts = append(parts, fmt.Sprintf("%s=%s", name, q.String()))
		}
	}
	return strings.Join(parts, ", ")
}
