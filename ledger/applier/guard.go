package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// OfferAnnotation is on a ResourceQuota while room is open in it for target pods that
	// have not come, if Config.Guard is set. It is for a ValidatingAdmissionPolicy that
	// refuses all other pods meanwhile, as long as status.hard is above spec.hard as well:
	// kube-controller-manager ends that, whatever becomes of the annotation. See
	// examples/controller/guard.
	//
	// It is written 20 ms before the room, with a status.hard that is raised by one unit,
	// because the admission policy and quota admission have caches of their own.
	OfferAnnotation = "headroom.vmquota.io/offer"

	// offerOpen is the value of OfferAnnotation. It says nothing but that it is there.
	offerOpen = "open"
	// guardLead is how long before the room OfferAnnotation is written.
	guardLead = 20 * time.Millisecond
)

func (v *view) isAnnotated() bool {
	_, annotated := v.rq.Annotations[OfferAnnotation]
	return annotated
}

// isGuarded reports whether the admission policy refuses regular pods, once it has seen rq.
func (v *view) isGuarded() bool {
	return v.isAnnotated() && exceeds(v.rq.Status.Hard, v.rq.Spec.Hard)
}

// lead returns how long to wait until the admission policy knows that an offer is about to
// be made; guardLead if it has not been announced.
func (v *view) lead() time.Duration {
	if !v.isGuarded() {
		return guardLead
	}
	return v.memory.history.announced.Add(guardLead).Sub(v.now)
}

// announce returns p for the time before an offer: the annotation is there, and status.hard
// is above spec.hard, but there is no room.
func (v *view) announce(p plan, lead time.Duration) plan {
	p.again, p.why = lead, "an offer is announced to the admission policy"
	if v.isGuarded() {
		return p
	}
	hard := v.target(v.closed)
	if !exceeds(hard, v.rq.Spec.Hard) {
		addUnit(hard)
	}
	p.next, p.action = v.write(hard, true), Announced
	p.history.announced, p.history.recounts.enforced = v.now, hard
	return p
}

// addUnit raises one limit of list by the least amount, of a resource of which that is less
// than any pod asks for if there is one.
func addUnit(list corev1.ResourceList) {
	names := append([]corev1.ResourceName{
		corev1.ResourceLimitsMemory, corev1.ResourceRequestsMemory, corev1.ResourceMemory, corev1.ResourceRequestsStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceRequestsCPU, corev1.ResourceCPU,
	}, sortedNames(list)...)
	for _, name := range names {
		q, limited := list[name]
		switch {
		case !limited:
			continue
		case name == corev1.ResourceLimitsCPU, name == corev1.ResourceRequestsCPU, name == corev1.ResourceCPU:
			list[name] = plus(q, *resource.NewMilliQuantity(1, resource.DecimalSI))
		default:
			list[name] = plus(q, *resource.NewQuantity(1, resource.DecimalSI))
		}
		return
	}
}
