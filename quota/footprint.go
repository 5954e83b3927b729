package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Names that a ResourceQuota may limit and that k8s.io/api/core/v1 has no constant for.
const (
	countPods   corev1.ResourceName = "count/pods"
	countClaims corev1.ResourceName = "count/persistentvolumeclaims"

	requestsPrefix     = corev1.DefaultResourceRequestsPrefix
	limitsPrefix       = "limits."
	storageClassSuffix = ".storageclass.storage.k8s.io/"
	deviceClassPrefix  = resourcev1.ResourceDeviceClassPrefix
)

// Footprint returns what quota charges for pod, in ResourceQuota names and units
// (cores, bytes, objects).
//
// It charges what the pod evaluator of Kubernetes does
// (k8s.io/kubernetes/pkg/quota/v1/evaluator/core, v1.34 to v1.37): the sum over containers and
// sidecars or, where it is greater, what an init container needs together with the sidecars
// before it; pod-level resources instead of that sum; what status says of a resize in place;
// and the pod's overhead. Requests of cpu, memory, ephemeral-storage and hugepages are there
// both under their own name and under requests., those of extended resources and of device
// classes only under requests., and limits of cpu, memory and ephemeral-storage under limits.
// The pod itself is pods and count/pods.
//
// A terminal pod (Succeeded or Failed) is charged for count/pods only. A resource
// that no container names is absent. A nil pod is charged for nothing: the result is
// empty, never nil. Negative requests, which the API server refuses, are added up as
// they are; the rule counts a negative sum as zero.
//
// In the middle of a resize in place API servers up to v1.36 charge each container for the
// greatest of what spec asks for and what status says, from v1.37 on the pod for the greatest
// of the three sums. Footprint returns the former, which is never less, so no API server
// charges a migration for more than was added to the limit.
//
// Which quotas charge the pod is said by [Selects].
func Footprint(pod *corev1.Pod) corev1.ResourceList { return FootprintAt(pod, time.Time{}) }

// FootprintAt is Footprint at the time now: a pod that is deleted and past its
// grace period is charged for no more than its object. A zero now is before all
// such ends.
//
// As in Kubernetes, that is after metadata.deletionTimestamp, which contains the grace period
// already, plus metadata.deletionGracePeriodSeconds; a pod that lacks either is charged until
// it is gone.
func FootprintAt(pod *corev1.Pod, now time.Time) corev1.ResourceList {
	charged := corev1.ResourceList{}
	if pod == nil {
		return charged
	}
	charged[countPods] = one()
	if Ended(pod, now) {
		return charged
	}
	charged[corev1.ResourcePods] = one()

	// The sums below add the overhead to the pod-level quantities in place, which
	// would reach into the caller's pod where those are big decimals.
	view := *pod
	view.Spec.Resources = pod.Spec.Resources.DeepCopy()
	view.Spec.Containers, view.Spec.InitContainers = resized(pod, pod.Spec.Containers), resized(pod, pod.Spec.InitContainers)
	options := resourcehelper.PodResourcesOptions{}
	for name, request := range resourcehelper.PodRequests(&view, options) {
		if chargedByName(name) {
			charged[name] = request.DeepCopy()
		}
		if chargedByName(name) || chargedAsRequest(name) {
			charged[requestsPrefix+name] = request.DeepCopy()
		}
	}
	for name, limit := range resourcehelper.PodLimits(&view, options) {
		if isCompute(name) {
			charged[limitsPrefix+name] = limit.DeepCopy()
		}
	}
	return charged
}

// Ended reports whether quota charges only the object of pod (count/pods) at the time now, as
// in [FootprintAt]: it is terminal, or deleted and past its grace period. A nil pod has ended.
func Ended(pod *corev1.Pod, now time.Time) bool {
	if pod == nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return true
	}
	if now.IsZero() || pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return false
	}
	grace := time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	return now.After(pod.DeletionTimestamp.Add(grace))
}

// isCompute reports whether quota charges both requests and limits of name.
func isCompute(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
}

// chargedByName reports whether quota charges requests of name under the name itself
// as well as under requests.
func chargedByName(name corev1.ResourceName) bool {
	return isCompute(name) || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// chargedAsRequest reports whether quota charges requests of name under requests.
// only: it is an extended resource, or the implicit one of a device class.
func chargedAsRequest(name corev1.ResourceName) bool {
	s := string(name)
	if strings.HasPrefix(s, deviceClassPrefix) {
		return true
	}
	native := !strings.Contains(s, "/") || strings.Contains(s, corev1.ResourceDefaultNamespacePrefix)
	return !native && !strings.HasPrefix(s, requestsPrefix) && len(validation.IsQualifiedName(requestsPrefix+s)) == 0
}

// ClaimFootprint returns what quota charges for a PersistentVolumeClaim, in
// ResourceQuota names and units (bytes, objects).
//
// It charges what the claim evaluator of Kubernetes does: persistentvolumeclaims,
// count/persistentvolumeclaims and requests.storage, the first and the last also
// under the name of the claim's storage class, as in
// gold.storageclass.storage.k8s.io/requests.storage. Storage is what spec requests,
// or what status.allocatedResources says if that is more, rounded up to whole bytes.
// A claim that requests no storage is charged as an object only, whatever its status
// says. A nil pvc is charged for nothing: the result is empty, never nil.
func ClaimFootprint(pvc *corev1.PersistentVolumeClaim) corev1.ResourceList {
	charged := corev1.ResourceList{}
	if pvc == nil {
		return charged
	}
	charged[countClaims] = one()
	charge := func(name corev1.ResourceName, q resource.Quantity) {
		charged[name] = q
		if class := storageClass(pvc); class != "" {
			charged[corev1.ResourceName(class+storageClassSuffix)+name] = q.DeepCopy()
		}
	}
	charge(corev1.ResourcePersistentVolumeClaims, one())
	if storage, ok := claimedStorage(pvc); ok {
		charge(corev1.ResourceRequestsStorage, storage)
	}
	return charged
}

// storageClass returns the name of the storage class of pvc; empty: none. The
// annotation is older than the field and goes before it, also when it is empty.
func storageClass(pvc *corev1.PersistentVolumeClaim) string {
	if class, ok := pvc.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	if pvc.Spec.StorageClassName == nil {
		return ""
	}
	return *pvc.Spec.StorageClassName
}

// claimedStorage returns the bytes that pvc is charged for, in memory of their own.
func claimedStorage(pvc *corev1.PersistentVolumeClaim) (resource.Quantity, bool) {
	requested, ok := pvc.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return resource.Quantity{}, false
	}
	storage := requested.DeepCopy()
	storage.RoundUp(0)
	if allocated, ok := pvc.Status.AllocatedResources[corev1.ResourceStorage]; ok && allocated.Cmp(storage) > 0 {
		storage = allocated.DeepCopy()
		storage.RoundUp(0)
	}
	return storage, true
}

func one() resource.Quantity { return *resource.NewQuantity(1, resource.DecimalSI) }
