package quota

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Under returns the migrations as the quota rq sees them: those of which its scopes
// select something, with Surge, Held and Shares cut down to that. Without scopes
// these are all of them, whole. A nil rq sees none. The result keeps the order of
// migrations and shares no memory with them.
func Under(rq *corev1.ResourceQuota, migrations []Migration) []Migration {
	if rq == nil {
		return nil
	}
	scoped := len(rq.Spec.Scopes) > 0 || rq.Spec.ScopeSelector != nil
	var seen []Migration
	for i := range migrations {
		m := migrations[i].DeepCopy()
		if !scoped || m.narrow(rq) {
			seen = append(seen, m)
		}
	}
	return seen
}

// narrow cuts m down to what the scopes of rq select, and reports whether that is
// anything.
func (m *Migration) narrow(rq *corev1.ResourceQuota) bool {
	if m.Shares == nil {
		return Traits{}.SelectedBy(rq)
	}
	var selected []Share
	for _, share := range m.Shares {
		if share.Traits.SelectedBy(rq) {
			selected = append(selected, share)
		}
	}
	m.Shares = selected
	m.Surge, m.Held = m.sum()
	return len(selected) > 0
}

// sum adds up the shares. What they hold stays nil if it is nil in all of them.
func (m *Migration) sum() (surge, held corev1.ResourceList) {
	surge = corev1.ResourceList{}
	if slices.ContainsFunc(m.Shares, func(share Share) bool { return share.Held != nil }) {
		held = corev1.ResourceList{}
	}
	for _, share := range m.Shares {
		addList(surge, share.Surge)
		switch {
		case held == nil:
		case share.Held == nil && m.State >= Charged:
			addList(held, share.Surge)
		default:
			addList(held, share.Held)
		}
	}
	return surge, held
}

// addList adds b to a in place.
func addList(a, b corev1.ResourceList) {
	for name, q := range b {
		format := formatOf(q)
		if sum, ok := a[name]; ok {
			format = formatOf(sum)
		}
		a[name] = amountOf(a[name]).plus(amountOf(q)).in(format)
	}
}
