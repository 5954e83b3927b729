package migration_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// podClaim is the annotation of a ResourceClaim with the name of the entry in the pod.
const podClaim = "resource.kubernetes.io/pod-claim-name"

// twoNICs is what a ResourceClaim for two devices of the class nic is charged for.
var twoNICs = list("count/resourceclaims.resource.k8s.io=1 nic.deviceclass.resource.k8s.io/devices=2")

// template lets pod ask for a ResourceClaim from a template.
func template(pod *corev1.Pod) {
	name := "nics"
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "net", ResourceClaimTemplateName: &name}}
}

// nics adds the claim that Kubernetes makes for pod.
func (s *scene) nics(pod *corev1.Pod, name string, count int64) *resourcev1.ResourceClaim {
	claim := &resourcev1.ResourceClaim{ObjectMeta: s.meta(name)}
	claim.Annotations[podClaim] = "net"
	claim.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))}
	claim.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: "nic", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count,
	}}}
	s.ResourceClaims = append(s.ResourceClaims, claim)
	return claim
}

// newDeviceScene is newScene with a ResourceClaim of the source for two devices.
func newDeviceScene(t testing.TB) *scene {
	s := newScene(t)
	template(s.source)
	s.nics(s.source, "source-net", 2)
	return s
}

func TestResourceClaimsOfAMigration(t *testing.T) {
	s := newDeviceScene(t)
	m := s.refused(s.vm, "m1")
	all := plus(onePod, twoNICs)
	s.expect(flight{m.UID, quota.Blocked, all, nil})

	m.Status = kubevirtv1.VirtualMachineInstanceMigrationStatus{}
	s.Migrations = nil
	m, target := s.running(s.vm, s.source, "m2", "target")
	template(target)
	s.expect(flight{m.UID, quota.Charged, all, onePod}) // the claim is still to be made
	s.nics(target, "target-net", 2)
	s.expect(flight{m.UID, quota.Charged, all, all})

	succeed(s.vm, m)
	s.expect(flight{m.UID, quota.Charged, all, all})
	claims := s.ResourceClaims
	s.ResourceClaims = claims[:1] // the target's is not seen
	s.expect(flight{m.UID, quota.Charged, all, all})
	s.ResourceClaims = claims[1:] // the source's is gone first
	s.expect(flight{m.UID, quota.Charged, onePod, onePod})
	s.source.Status.Phase = corev1.PodSucceeded
	s.expect()
}

// After a failure no claim is made for the target any more.
func TestResourceClaimsOfAFailedMigration(t *testing.T) {
	s := newDeviceScene(t)
	m, target := s.running(s.vm, s.source, "m1", "target")
	template(target)
	fail(s.vm, m)
	s.expect(flight{m.UID, quota.Charged, onePod, onePod})
	s.nics(target, "target-net", 2)
	s.expect(flight{m.UID, quota.Charged, plus(onePod, twoNICs), plus(onePod, twoNICs)})
}

func TestExtendedResourcesOfClaims(t *testing.T) {
	s := newDeviceScene(t)
	m := s.refused(s.vm, "m1")
	name := "example.com/nic"
	s.DeviceClasses = []*resourcev1.DeviceClass{
		nil,
		{ObjectMeta: metav1.ObjectMeta{Name: "other"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "nic"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: &name}},
	}
	s.expect(flight{m.UID, quota.Blocked, plus(onePod, twoNICs, list("requests.example.com/nic=2 requests.deviceclass.resource.kubernetes.io/nic=2")), nil})
}

// Nothing is added for a claim that source and target share, or that is not known.
func TestResourceClaimsThatAreNotDoubled(t *testing.T) {
	s := newDeviceScene(t)
	m := s.refused(s.vm, "m1")
	name := "source-net"
	s.source.Spec.ResourceClaims[0].ResourceClaimTemplateName, s.source.Spec.ResourceClaims[0].ResourceClaimName = nil, &name
	s.expect(flight{m.UID, quota.Blocked, onePod, nil})

	s = newDeviceScene(t)
	m = s.refused(s.vm, "m1")
	s.ResourceClaims = nil
	s.expect(flight{m.UID, quota.Blocked, onePod, nil})
}

// Whoever may create ResourceClaims moves nothing by those that Kubernetes did not make.
func TestForgedResourceClaims(t *testing.T) {
	s := newDeviceScene(t)
	m, target := s.running(s.vm, s.source, "m1", "target")
	template(target)
	all := plus(onePod, twoNICs)
	s.nics(s.source, "a-second-one", 100)
	s.nics(target, "of-another-entry", 100).Annotations[podClaim] = "other"
	s.nics(target, "unowned", 100).OwnerReferences = nil
	s.nics(target, "owned-by-the-vmi", 100).OwnerReferences = target.OwnerReferences
	s.expect(flight{m.UID, quota.Charged, all, onePod})
	// Kubernetes takes it for its own, if it comes before that.
	s.nics(target, "in-time", 100)
	most := plus(onePod, list("count/resourceclaims.resource.k8s.io=1 nic.deviceclass.resource.k8s.io/devices=8"))
	s.expect(flight{m.UID, quota.Charged, most, most})
}

// A claim that quota refuses is seen from the event of the pod: no VMIM says it.
func TestRefusedResourceClaim(t *testing.T) {
	s := newDeviceScene(t)
	m, target := s.running(s.vm, s.source, "m1", "target")
	template(target)
	m.Status.Phase = kubevirtv1.MigrationScheduling
	event := &corev1.Event{
		ObjectMeta:     s.meta("event"),
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: target.Name, UID: target.UID},
		Reason:         "FailedResourceClaimCreation",
		Message: `PodResourceClaim net: create ResourceClaim : resourceclaims.resource.k8s.io "target-net-x7k2p" is forbidden: exceeded quota: devices, ` +
			"requested: count/resourceclaims.resource.k8s.io=1,nic.deviceclass.resource.k8s.io/devices=3, used: x, limited: y",
	}
	s.Events = []*corev1.Event{event}
	more := plus(onePod, list("count/resourceclaims.resource.k8s.io=1 nic.deviceclass.resource.k8s.io/devices=3"))
	s.expect(flight{m.UID, quota.Charged, more, onePod})
	require.Equal(t, "devices", migration.InFlight(s.Snapshot)[0].RefusedBy)
	require.True(t, migration.IsRefusal(event))
	require.Equal(t, "tenant", migration.NamespaceOf(event))

	event.InvolvedObject.UID = s.source.UID
	s.expect(flight{m.UID, quota.Charged, plus(onePod, twoNICs), onePod})
	require.Empty(t, migration.InFlight(s.Snapshot)[0].RefusedBy)

	event.InvolvedObject.UID = target.UID
	s.nics(target, "target-net", 2)
	s.expect(flight{m.UID, quota.Charged, plus(onePod, twoNICs), plus(onePod, twoNICs)})
	require.Empty(t, migration.InFlight(s.Snapshot)[0].RefusedBy, "it was created")
}
