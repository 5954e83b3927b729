package quota

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// countResourceClaims is a name that a ResourceQuota may limit and that k8s.io/api/core/v1
// has no constant for.
const countResourceClaims corev1.ResourceName = "count/resourceclaims.resource.k8s.io"

// ResourceClaimFootprint returns what quota charges for a ResourceClaim, in ResourceQuota
// names and units (devices, objects).
//
// It charges what the claim evaluator of Kubernetes does
// (pkg/quota/v1/evaluator/core/resource_claims.go, v1.34 to v1.37): the claim itself as
// count/resourceclaims.resource.k8s.io, and the devices that it asks for by their class, as
// in gpu.deviceclass.resource.k8s.io/devices. Of alternatives it is the most of each class, and
// all devices of a class are 32. If extended (which may be nil) returns a name for a class, such
// as example.com/gpu, the devices are also charged as requests.example.com/gpu and as
// requests.deviceclass.resource.kubernetes.io/gpu; of two classes with the same name only those
// of the one with more. Claims that the scheduler makes for extended resources are charged in
// full. A nil claim is charged for nothing: the result is empty, never nil.
func ResourceClaimFootprint(claim *resourcev1.ResourceClaim, extended func(class string) string) corev1.ResourceList {
	charged := corev1.ResourceList{}
	if claim == nil {
		return charged
	}
	classes := map[string]bool{}
	for i := range claim.Spec.Devices.Requests {
		for class, devices := range devicesOf(&claim.Spec.Devices.Requests[i]) {
			addList(charged, corev1.ResourceList{ofDeviceClass(class): *resource.NewQuantity(devices, resource.DecimalSI)})
			classes[class] = true
		}
	}
	for class := range classes {
		devices := charged[ofDeviceClass(class)]
		if extended == nil || class == "" || extended(class) == "" || devices.Sign() <= 0 {
			continue
		}
		charged[requestsPrefix+corev1.ResourceName(deviceClassPrefix+class)] = devices.DeepCopy()
		name := requestsPrefix + corev1.ResourceName(extended(class))
		if devices.Cmp(charged[name]) > 0 {
			charged[name] = devices.DeepCopy()
		}
	}
	charged[countResourceClaims] = one()
	return charged
}

func ofDeviceClass(class string) corev1.ResourceName {
	return corev1.ResourceName(class + corev1.ResourceClaimsPerClass)
}

// devicesOf returns how many devices of each class request is charged for.
func devicesOf(request *resourcev1.DeviceRequest) map[string]int64 {
	devices := map[string]int64{}
	if exactly := request.Exactly; exactly != nil && len(request.FirstAvailable) == 0 {
		devices[exactly.DeviceClassName] = deviceCount(exactly.AllocationMode, exactly.Count)
	}
	for _, alternative := range request.FirstAvailable {
		if n := deviceCount(alternative.AllocationMode, alternative.Count); n > devices[alternative.DeviceClassName] {
			devices[alternative.DeviceClassName] = n
		}
	}
	return devices
}

// deviceCount returns how many devices a request is charged for; zero if its mode is unknown.
func deviceCount(mode resourcev1.DeviceAllocationMode, count int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return count
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	default:
		return 0
	}
}
