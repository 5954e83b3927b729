package applier

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota/amounts"
)

var (
	each, plus, minus, least, most = amounts.Each, amounts.Plus, amounts.Minus, amounts.Min, amounts.Max
	exceeds, sortedNames           = amounts.Exceeds, amounts.Names
)

// text is list for people, without what is zero.
func text(list corev1.ResourceList) string {
	shown := corev1.ResourceList{}
	for name, q := range list {
		if q.Sign() != 0 {
			shown[name] = q
		}
	}
	return amounts.Text(shown, ", ")
}
