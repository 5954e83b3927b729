package fake

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// A ResourceClaim that quota refuses leaves the target pod Pending, and no condition on the
// VMIM says why: the event of the pod does.
func TestRefusedResourceClaim(t *testing.T) {
	c := New(Config{})
	const devices = "nic.deviceclass.resource.k8s.io/devices"
	require.NoError(t, c.CreateNamespace("n", corev1.ResourceList{devices: resource.MustParse("2")}))
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "nics"}}
	template.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: "nic", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 2,
	}}}
	require.NoError(t, createAs(c, adminUser, template))
	c.Advance(time.Second)
	vmi := NewVMI("n", "vm", 1, resource.MustParse("1Gi"))
	// Versions of kubevirt.io/api have different types for it.
	require.NoError(t, json.Unmarshal([]byte(`[{"name":"net","resourceClaimTemplateName":"nics"}]`), &vmi.Spec.ResourceClaims))
	require.NoError(t, c.CreateVMI(vmi))
	require.True(t, c.Until(time.Minute, func() bool { return c.VMI("n", "vm").IsRunning() }))
	require.Equal(t, "2", spell(c.Quota("n", "n").Status.Used[devices]))

	require.NoError(t, c.Migrate("n", "m", "vm", Outcome{}))
	c.Advance(10 * time.Second)
	m := c.Migration("n", "m")
	require.Equal(t, kubevirtv1.MigrationScheduling, m.Status.Phase)
	require.Empty(t, m.Status.Conditions)
	require.Equal(t, corev1.PodPending, c.virt.target(m, c.VMI("n", "vm")).Status.Phase)
	events := c.Snapshot("n").Events
	require.Len(t, events, 1)
	require.Regexp(t, `^PodResourceClaim net: create ResourceClaim : resourceclaims.resource.k8s.io "virt-launcher-vm-.....-net-....." is forbidden: `+
		`exceeded quota: n, requested: `+devices+`=2, used: `+devices+`=2, limited: `+devices+`=2$`, events[0].Message)
	require.Len(t, c.Snapshot("n").ResourceClaims, 1)
	require.Equal(t, "n", migration.InFlight(c.Snapshot("n"))[0].RefusedBy)

	rq := c.Quota("n", "n")
	rq.Status.Hard[devices] = resource.MustParse("4")
	require.NoError(t, updateStatus(c, adminUser, rq))
	require.True(t, c.Until(time.Hour, func() bool { return c.Migration("n", "m").Status.Phase == kubevirtv1.MigrationSucceeded }))
	require.True(t, c.Until(time.Minute, func() bool { return len(c.Snapshot("n").ResourceClaims) == 1 }))
	require.True(t, c.Until(time.Minute, func() bool { return spell(c.Quota("n", "n").Status.Used[devices]) == "2" }))
}

// A resize in place is charged when it is asked for, up to what quota has left.
func TestResizeIsCharged(t *testing.T) {
	c := vms(t, Config{}, 1, 1)
	pods := c.Client(adminUser).CoreV1().Pods("n")
	pod := c.Snapshot("n").Pods[0].DeepCopy()
	grow := func(cpu string) error {
		pod.Spec.Containers[0].Resources.Limits[corev1.ResourceCPU] = resource.MustParse(cpu)
		_, err := pods.UpdateResize(t.Context(), pod.Name, pod, metav1.UpdateOptions{})
		return err
	}
	require.ErrorContains(t, grow("3"), "exceeded quota: n, requested: limits.cpu=2, used: limits.cpu=1015m, limited: limits.cpu=2030m")
	require.NoError(t, grow("2"))
	require.Equal(t, "2015m", spell(c.Quota("n", "n").Status.Used[corev1.ResourceLimitsCPU]))
	pod = c.Snapshot("n").Pods[0].DeepCopy()
	require.NoError(t, grow("1"))
	require.True(t, c.Until(time.Minute, func() bool { return spell(c.Quota("n", "n").Status.Used[corev1.ResourceLimitsCPU]) == "1015m" }))
}
