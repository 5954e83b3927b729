package applier

import (
	corev1 "k8s.io/api/core/v1"
)

// GuardAnnotation is beside [StaticAnnotation] if Config.Guard is set. It says how far
// regular workloads may bring the usage of the raised quota: a JSON object of quantities
// like that of the static limits, for a ValidatingAdmissionPolicy that has no other way to
// know. The rest of spec.hard is for live migrations. See examples/controller/guard.
//
// The limit of a resource is static plus temporary usage, as the ledger knows it, but no
// more temporary usage than there is usage at all. A workload fits if used and what it asks
// for are within it. So it moves with used:
//
//   - Where used runs ahead of the ledger, because a target pod is charged before it is
//     seen, used already has the pod and the limit does not: regular workloads are refused
//     what they might have, for the time that it takes to write the quota once more.
//   - Where used runs behind the ledger, because a pod has ended and the ledger still
//     takes it for charged, the limit is too high by what it held: for that time regular
//     workloads may take what it has left. Spec.hard has the same delay, so it is the room
//     that they would have without the guard. Nothing that is still to come, of a blocked
//     migration, is in the limit at any time.
//
// A part of the ledger that cannot be read counts as no temporary usage.
const GuardAnnotation = "headroom.vmquota.io/guard"

// guard returns what GuardAnnotation must be while the quota is raised, empty for none.
func (v *view) guard(temporary corev1.ResourceList) string {
	if !v.guarded {
		return ""
	}
	held := each(temporary, v.rq.Status.Used, least)
	return encode(exact(each(v.static, held, plus)))
}

// withGuard sets GuardAnnotation on rq, which is a copy of our own; empty removes it.
func withGuard(rq *corev1.ResourceQuota, guard string) *corev1.ResourceQuota {
	if guard == "" {
		delete(rq.Annotations, GuardAnnotation)
	} else {
		rq.Annotations[GuardAnnotation] = guard
	}
	return rq
}
