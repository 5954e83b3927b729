package quota_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/vmquota/headroom/quota"
)

func asksFor(class string, mode resourcev1.DeviceAllocationMode, count int64) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: mode, Count: count}}
}

func first(alternatives ...resourcev1.DeviceSubRequest) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{FirstAvailable: alternatives}
}

func TestResourceClaimFootprint(t *testing.T) {
	const claim = "count/resourceclaims.resource.k8s.io=1 "
	const some, all = resourcev1.DeviceAllocationModeExactCount, resourcev1.DeviceAllocationModeAll
	extended := func(class string) string {
		return map[string]string{"gpu": "example.com/gpu", "big": "example.com/gpu"}[class]
	}
	cases := map[string]struct {
		requests []resourcev1.DeviceRequest
		want     string
	}{
		"no devices":         {nil, claim},
		"one request":        {[]resourcev1.DeviceRequest{asksFor("net", some, 2)}, claim + "net.deviceclass.resource.k8s.io/devices=2"},
		"requests add up":    {[]resourcev1.DeviceRequest{asksFor("net", some, 2), asksFor("nic", some, 1), asksFor("net", some, 1)}, claim + "net.deviceclass.resource.k8s.io/devices=3 nic.deviceclass.resource.k8s.io/devices=1"},
		"all devices":        {[]resourcev1.DeviceRequest{asksFor("net", all, 0)}, claim + "net.deviceclass.resource.k8s.io/devices=32"},
		"another mode":       {[]resourcev1.DeviceRequest{asksFor("net", "Half", 7)}, claim + "net.deviceclass.resource.k8s.io/devices=0"},
		"another request":    {[]resourcev1.DeviceRequest{{Name: "r"}}, claim},
		"the sum past int64": {[]resourcev1.DeviceRequest{asksFor("net", some, 1<<62), asksFor("net", some, 1<<62)}, claim + "net.deviceclass.resource.k8s.io/devices=9223372036854775808"},
		"the most of the alternatives, by class": {
			[]resourcev1.DeviceRequest{first(
				resourcev1.DeviceSubRequest{DeviceClassName: "net", AllocationMode: some, Count: 1},
				resourcev1.DeviceSubRequest{DeviceClassName: "net", AllocationMode: some, Count: 4},
				resourcev1.DeviceSubRequest{DeviceClassName: "nic", AllocationMode: all},
				resourcev1.DeviceSubRequest{DeviceClassName: "none", AllocationMode: some},
			)},
			claim + "net.deviceclass.resource.k8s.io/devices=4 nic.deviceclass.resource.k8s.io/devices=32",
		},
		"a class with an extended resource": {[]resourcev1.DeviceRequest{asksFor("gpu", some, 2)}, claim + "gpu.deviceclass.resource.k8s.io/devices=2 requests.deviceclass.resource.kubernetes.io/gpu=2 requests.example.com/gpu=2"},
		"two classes with one extended resource": {
			[]resourcev1.DeviceRequest{asksFor("gpu", some, 2), asksFor("big", some, 3)},
			claim + "gpu.deviceclass.resource.k8s.io/devices=2 requests.deviceclass.resource.kubernetes.io/gpu=2" +
				" big.deviceclass.resource.k8s.io/devices=3 requests.deviceclass.resource.kubernetes.io/big=3 requests.example.com/gpu=3",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			object := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: c.requests}}}
			requireCharged(t, c.want, quota.ResourceClaimFootprint(object, extended))
		})
	}
	require.Equal(t, corev1.ResourceList{}, quota.ResourceClaimFootprint(nil, extended))
	gpus := &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{asksFor("gpu", some, 2)}}}}
	requireCharged(t, claim+"gpu.deviceclass.resource.k8s.io/devices=2", quota.ResourceClaimFootprint(gpus, nil))
}
