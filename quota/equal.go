package quota

import corev1 "k8s.io/api/core/v1"

// Equal reports whether a and b limit the same resources to the same amounts,
// however these are spelled. A nil list equals an empty one; a resource with a zero
// does not equal one that is absent, because a zero is a limit.
func Equal(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, p := range a {
		if q, ok := b[name]; !ok || p.Cmp(q) != 0 {
			return false
		}
	}
	return true
}
