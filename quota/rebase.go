package quota

import corev1 "k8s.io/api/core/v1"

// Rebase returns the static limits of a quota that others may have edited since we
// last wrote it: static are the limits as they were then, applied is what we wrote,
// and live is what is there now. It is a three-way merge, resource by resource:
//
//   - a limit of live that is still the applied one keeps its static value;
//   - one that is not, or that was not applied, was set by somebody: it is the new
//     static value;
//   - one that is gone from live was removed by somebody, and is gone.
//
// Amounts are compared by value, not by spelling. A still applied limit that static
// does not have keeps the applied value: there is nothing better to go back to. Nil
// lists are empty, so with nothing applied the result is live. The result is never
// nil.
func Rebase(static, applied, live corev1.ResourceList) corev1.ResourceList {
	rebased := make(corev1.ResourceList, len(live))
	for name, limit := range live {
		if ours, ok := applied[name]; ok && ours.Cmp(limit) == 0 {
			if was, ok := static[name]; ok {
				limit = was
			}
		}
		rebased[name] = limit.DeepCopy()
	}
	return rebased
}

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
