package fake

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// claimFinalizer keeps a claim while pods refer to it.
const claimFinalizer = "kubernetes.io/pvc-protection"

// releaseClaims lets go of the claims that are being deleted, once no scheduled pod refers to them: also one
// that has ended keeps them, until it is deleted (podUsesPVCForDeletion in Kubernetes'
// pkg/controller/volume/pvcprotection).
func (c *Cluster) releaseClaims(happened change) {
	_, isClaim := happened.after.(*corev1.PersistentVolumeClaim)
	if gone := happened.kind == Pods && happened.after == nil; !gone && !isClaim {
		return
	}
	namespace := happened.object().GetNamespace()
	for _, claim := range all[*corev1.PersistentVolumeClaim](&c.store, namespace) {
		if claim.DeletionTimestamp == nil {
			continue
		}
		c.clock.after(c.draw(c.config.Timing.Wake), func() {
			if !slices.ContainsFunc(all[*corev1.Pod](&c.store, namespace), func(pod *corev1.Pod) bool { return refers(pod, claim.Name) }) {
				write(c, "pvc-protection-controller", claim, func(claim *corev1.PersistentVolumeClaim) { claim.Finalizers = nil })
			}
		})
	}
}

func refers(pod *corev1.Pod, claim string) bool {
	return pod.Spec.NodeName != "" && slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
}
