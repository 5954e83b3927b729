package quota

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Equal reports whether a and b limit the same resources to the same amounts,
// however these are spelled. A nil list equals an empty one; a resource with a zero
// does not equal one that is absent, because a zero is a limit.
func Equal(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(p, q resource.Quantity) bool { return p.Cmp(q) == 0 })
}
