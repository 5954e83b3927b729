package fake

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const claimControllerUser = "resourceclaim-controller"

// A claimController is the part of kube-controller-manager that makes ResourceClaims from templates for pods
// (pkg/controller/resourceclaim of Kubernetes, v1.37): it says which in the status of a pod, tries again with a
// back-off if quota refuses one, and deletes them when the pod has ended. No claim is ever allocated: the
// scheduler only waits until they are there.
type claimController struct {
	*Cluster
	queue *queue
}

func newClaimController(c *Cluster) *claimController {
	k := &claimController{Cluster: c}
	k.queue = newQueue(&c.clock, k.sync)
	return k
}

func (k *claimController) observe(c change) {
	if pod, ok := c.after.(*corev1.Pod); ok && len(pod.Spec.ResourceClaims) > 0 {
		k.queue.add(key(pod), k.draw(k.config.Timing.Wake))
	}
}

// sync makes the claims of one pod, or deletes them.
func (k *claimController) sync(name string) (time.Duration, error) {
	pod, ok := findKey[*corev1.Pod](&k.store, name)
	if !ok {
		return 0, nil // the garbage collector deletes them
	}
	if ended(pod) {
		k.nodes.collectDependents(pod, ResourceClaims)
		return 0, nil
	}
	for _, entry := range pod.Spec.ResourceClaims {
		if entry.ResourceClaimTemplateName == nil || hasClaim(pod, entry.Name) || pod.DeletionTimestamp != nil {
			continue
		}
		claim, err := k.make(pod, entry)
		if err != nil {
			event := k.virt.recorder.event(pod, corev1.SchemeGroupVersion.WithKind("Pod"), "FailedResourceClaimCreation", "resource_claim",
				fmt.Sprintf("PodResourceClaim %s: %v", entry.Name, err))
			event.Name = pod.Name + ".claims"
			k.virt.recorder.write(event)
			return 0, err
		}
		write(k.Cluster, claimControllerUser, pod, func(pod *corev1.Pod) {
			name := claim.GetName()
			pod.Status.ResourceClaimStatuses = append(pod.Status.ResourceClaimStatuses, corev1.PodResourceClaimStatus{Name: entry.Name, ResourceClaimName: &name})
		})
	}
	return 0, nil
}

func (k *claimController) make(pod *corev1.Pod, entry corev1.PodResourceClaim) (object, error) {
	template, ok := find[*resourcev1.ResourceClaimTemplate](&k.store, pod.Namespace, *entry.ResourceClaimTemplateName)
	if !ok {
		return nil, fmt.Errorf("resource claim template %q: not found", *entry.ResourceClaimTemplateName)
	}
	claim, err := k.create(claimControllerUser, &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       pod.Namespace,
			GenerateName:    pod.Name + "-" + entry.Name + "-",
			Annotations:     map[string]string{"resource.kubernetes.io/pod-claim-name": entry.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: *template.Spec.Spec.DeepCopy(),
	})
	if err != nil {
		return nil, fmt.Errorf("create ResourceClaim : %w", err)
	}
	return claim, nil
}

// hasClaim reports whether the claim for an entry of pod is there.
func hasClaim(pod *corev1.Pod, entry string) bool {
	return slices.ContainsFunc(pod.Status.ResourceClaimStatuses, func(s corev1.PodResourceClaimStatus) bool { return s.Name == entry })
}

// waitsForClaims reports whether the scheduler leaves pod alone until its claims are there.
func waitsForClaims(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.ResourceClaims, func(entry corev1.PodResourceClaim) bool {
		return entry.ResourceClaimTemplateName != nil && !hasClaim(pod, entry.Name)
	})
}
