package onbed

import (
	_ "embed" // for a policy
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// A Cluster is a namespace of a [Stage], and a [scenario.Cluster].
type Cluster struct {
	try.T
	stage     *Stage
	namespace string
}

// Client implements scenario.Cluster.
func (c *Cluster) Client() kubernetes.Interface { return c.stage.Client }

// Namespace implements scenario.Cluster.
func (c *Cluster) Namespace() string { return c.namespace }

// VMIs is an administrator's client of the machines.
func (c *Cluster) VMIs() virt.Client[kubevirtv1.VirtualMachineInstance] {
	return virt.VMIs(c.stage.Objects, c.namespace)
}

// VMIMs is an administrator's client of the migrations.
func (c *Cluster) VMIMs() virt.Client[kubevirtv1.VirtualMachineInstanceMigration] {
	return virt.VMIMs(c.stage.Objects, c.namespace)
}

// CreateVMI implements scenario.Cluster.
func (c *Cluster) CreateVMI(vmi *kubevirtv1.VirtualMachineInstance) {
	try.Must(c.VMIs().Create(c.Context(), vmi))(c)
}

// DeleteVMI implements scenario.Cluster.
func (c *Cluster) DeleteVMI(name string) { require.NoError(c, c.VMIs().Delete(c.Context(), name)) }

// CreateMigration implements scenario.Cluster.
func (c *Cluster) CreateMigration(m scenario.Migrate) {
	if m.Linger != "" {
		// On the VM as well, because it has to hold after the migration is deleted.
		c.patch(m.VM, annotated(sim.LingerAnnotation, m.Linger))
	}
	vmim := virt.NewVMIM(c.namespace, m.Name, m.VM)
	for name, value := range map[string]string{sim.MigrationAnnotation: m.Goes, sim.LingerAnnotation: m.Linger} {
		if value != "" { // which would go before that of the VM
			metav1.SetMetaDataAnnotation(&vmim.ObjectMeta, name, value)
		}
	}
	if m.Evacuates {
		metav1.SetMetaDataAnnotation(&vmim.ObjectMeta, kubevirtv1.EvacuationMigrationAnnotation, "")
	}
	try.Must(c.VMIMs().Create(c.Context(), vmim))(c)
}

// Release lets a migration that hangs go on.
func (c *Cluster) Release(name string) {
	try.Must(c.VMIMs().Patch(c.Context(), name, Spelled(annotated(sim.MigrationAnnotation, nil))))(c)
}

// DeleteMigration implements scenario.Cluster.
func (c *Cluster) DeleteMigration(name string) {
	require.NoError(c, c.VMIMs().Delete(c.Context(), name))
}

// annotated is a merge patch. Of the value nil, it removes the annotation.
func annotated(name string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}}
}

// patch patches a VMI.
func (c *Cluster) patch(vm string, patch map[string]any) {
	try.Must(c.VMIs().Patch(c.Context(), vm, Spelled(patch)))(c)
}

// HotPlug changes the VMI as KubeVirt's VM controller does when the VM is changed.
func (c *Cluster) HotPlug(h scenario.HotPlug) {
	c.patch(h.VM, map[string]any{"spec": map[string]any{"domain": map[string]any{
		"memory":    map[string]any{"guest": h.Memory, "maxGuest": h.Memory},
		"resources": map[string]any{"requests": map[string]any{"memory": h.Memory}},
	}}})
}

// SetUtilityVolumes changes the VMI as a backup tool does. Their claims do not exist, so they
// are never there in the guest.
func (c *Cluster) SetUtilityVolumes(vm string, volumes ...string) {
	spec := []map[string]string{}
	for _, volume := range volumes {
		spec = append(spec, map[string]string{"name": volume, "claimName": volume})
	}
	c.patch(vm, map[string]any{"spec": map[string]any{"utilityVolumes": spec}})
}

// SetBackup changes the status of the VMI as KubeVirt's backup controller and virt-handler do, without
// the tracking of changed blocks, which would need backend storage.
func (c *Cluster) SetBackup(vm string, inProgress bool) {
	c.patch(vm, map[string]any{"status": map[string]any{"changedBlockTracking": map[string]any{
		"state":        kubevirtv1.ChangedBlockTrackingDisabled,
		"backupStatus": map[string]any{"backupName": "backup", "completed": !inProgress},
	}}})
}

//go:embed refuse.yaml
var refuseYAML []byte

// RefusePods implements scenario.Cluster, by a policy. It returns when that is in force.
func (c *Cluster) RefusePods(message string) {
	c.stage.Bed.Create(c, refuseYAML)
	var value any = message
	if message == "" {
		value = nil
	}
	c.PatchNamespace("annotations", "testbed.headroom.vmquota.io/refuse", value)
	probe := scenario.NewPod("probe", nil)
	try.Eventually(c, func(t try.T) {
		_, err := c.Client().CoreV1().Pods(c.namespace).Create(t.Context(), probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.Equal(t, message != "", strings.Contains(fmt.Sprint(err), "ValidatingAdmissionPolicy 'refuse'"), err)
	})
}

// Drain implements scenario.Cluster. It tries again while the API server is away.
func (c *Cluster) Drain(node string) {
	try.Eventually(c, func(t try.T) { require.NoError(t, c.stage.Bed.Simulator().Drain(t.Context(), node)) })
}

// Undrain implements scenario.Cluster. It tries again while the API server is away.
func (c *Cluster) Undrain(node string) {
	try.Eventually(c, func(t try.T) { require.NoError(t, c.stage.Bed.Simulator().Undrain(t.Context(), node)) })
}

// SetOverhead implements scenario.Cluster. The overhead is as before when the scenario has ended.
func (c *Cluster) SetOverhead(overhead scenario.Overhead) {
	const ratio = "additionalGuestMemoryOverheadRatio" // in KubeVirt's configuration
	c.stage.Configure(c, map[string]any{ratio: overhead.Ratio})
	try.Cleanup(c, func(t try.T) { c.stage.Configure(t, map[string]any{ratio: nil}) })
}

// DeleteNamespace implements scenario.Cluster.
func (c *Cluster) DeleteNamespace() {
	require.NoError(c, c.stage.Client.CoreV1().Namespaces().Delete(c.Context(), c.namespace, metav1.DeleteOptions{}))
}

// State implements scenario.Cluster.
func (c *Cluster) State() scenario.State { return c.stage.watch.state(c.namespace) }

// Until implements scenario.Cluster.
func (c *Cluster) Until(done func(scenario.State) bool) bool { return c.Within(try.Patience, done) }

// Within waits until done of the State, and reports whether it was within d.
func (c *Cluster) Within(d time.Duration, done func(scenario.State) bool) bool {
	for end := time.Now().Add(d); !done(c.State()); try.Sleep(c, 20*time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Await waits until done of the State. If it fails, it says what was waited for, and what there is.
func (c *Cluster) Await(what string, done func(scenario.State) bool) {
	c.Helper()
	if !c.Until(done) {
		require.Fail(c, "waited in vain until "+what, "namespace %s: %v", c.namespace, c.State())
	}
}

// AwaitPhase waits until a migration is in a phase: see [scenario.State.Is].
func (c *Cluster) AwaitPhase(name, phase string) {
	c.Helper()
	c.Await(name+" is "+phase, func(s scenario.State) bool { return s.Is(name, phase) })
}

// Succeeded waits until migrations have succeeded.
func (c *Cluster) Succeeded(names ...string) {
	c.Helper()
	for _, name := range names {
		c.AwaitPhase(name, string(kubevirtv1.MigrationSucceeded))
	}
}

// Rest implements scenario.Cluster. What the library does without an event, it does
// after a second.
func (c *Cluster) Rest() { try.Sleep(c, 1500*time.Millisecond) }

// Writes implements scenario.Cluster.
func (c *Cluster) Writes() int {
	n := 0
	for _, e := range c.Audit() {
		if Wrote(e) {
			n++
		}
	}
	return n
}

// Audit returns what the API server has logged about the namespace.
func (c *Cluster) Audit() (own []bed.AuditEvent) {
	c.Helper()
	for _, e := range c.stage.Bed.Audit(c) {
		if e.Namespace == c.namespace {
			own = append(own, e)
		}
	}
	return own
}

// Versions returns what the quotas of the namespace were from each write to the next.
func (c *Cluster) Versions() []QuotaVersion {
	c.Helper()
	return try.Must(QuotaVersions(c.Audit()))(c)
}

// PatchNamespace sets a label or an annotation; what is "labels" or "annotations". Of the value
// nil, it removes it.
func (c *Cluster) PatchNamespace(what, name string, value any) {
	c.Helper()
	patch := Spelled(map[string]any{"metadata": map[string]any{what: map[string]any{name: value}}})
	try.Must(c.Client().CoreV1().Namespaces().Patch(c.Context(), c.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))(c)
}
