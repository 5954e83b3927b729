package applier

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota/amounts"
)

const (
	// OfferAnnotation is on a ResourceQuota while room is open in it for target pods that
	// have not come, if Config.Guard is set; its value is "open". It is for a
	// ValidatingAdmissionPolicy that refuses all other pods meanwhile, as long as status.hard is
	// above spec.hard as well: kube-controller-manager ends that, whatever becomes of the
	// annotation. See examples/controller/guard.
	OfferAnnotation = "headroom.vmquota.io/offer"
	// OfferAnnotation is written guardLead before the room, with a status.hard that is raised by
	// one unit, because the admission policy and quota admission have caches of their own. On a
	// busy API server all watches lag: then it is written lagFactor times as long before the room
	// as the caches of this process took to show it, but no longer than maxLead.
	guardLead = 20 * time.Millisecond
	lagFactor = 3
	maxLead   = 500 * time.Millisecond
)

func isAnnotated(rq *corev1.ResourceQuota) bool {
	_, annotated := rq.Annotations[OfferAnnotation]
	return annotated
}

// isGuarded reports whether the admission policy refuses regular pods, once it has seen rq.
func (v *view) isGuarded() bool {
	return isAnnotated(v.rq) && exceeds(v.rq.Status.Hard, v.rq.Spec.Hard)
}

// lead returns how long to wait until the admission policy knows that an offer is about to
// be made; guardLead if it has not been announced.
func (v *view) lead() time.Duration {
	if !v.isGuarded() {
		return guardLead
	}
	h := v.memory.history
	if h.announced.IsZero() {
		return 0 // by an earlier process
	}
	seen := h.seen
	if seen.IsZero() {
		seen = v.now
	}
	return h.announced.Add(min(max(guardLead, lagFactor*seen.Sub(h.announced)), maxLead)).Sub(v.now)
}

// announce returns p for the time before an offer: the annotation is there, and status.hard
// is above spec.hard, but there is no room.
func (v *view) announce(p plan, lead time.Duration) plan {
	p.RequeueAfter, p.Why = lead, "an offer is announced to the admission policy"
	if v.isGuarded() {
		if p.history.seen.IsZero() && v.memory.latest == nil {
			p.history.seen = v.now
		}
		return p
	}
	hard := v.target(v.closed)
	if !exceeds(hard, v.rq.Spec.Hard) {
		addUnit(hard)
	}
	p.next, p.Action = v.write(hard, true), Announced
	p.history.announced, p.history.seen, p.history.recounts.enforced = v.now, time.Time{}, hard
	return p
}

// addUnit raises one limit of list by the least amount, of a resource of which that is less
// than any pod asks for if there is one.
func addUnit(list corev1.ResourceList) {
	cpus := []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceRequestsCPU, corev1.ResourceCPU}
	names := slices.Concat([]corev1.ResourceName{
		corev1.ResourceLimitsMemory, corev1.ResourceRequestsMemory, corev1.ResourceMemory, corev1.ResourceRequestsStorage,
	}, cpus, amounts.Names(list))
	for _, name := range names {
		if q, limited := list[name]; limited {
			unit := resource.NewQuantity(1, resource.DecimalSI)
			if slices.Contains(cpus, name) {
				unit = resource.NewMilliQuantity(1, resource.DecimalSI)
			}
			list[name] = plus(q, *unit)
			return
		}
	}
}
