package onbed

import (
	"cmp"
	_ "embed" // for a policy
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
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

// A Fleet is a namespace with virtual machines that fill its quota to the byte, if no
// option says otherwise.
type Fleet struct {
	*Cluster
	Static  corev1.ResourceList // spec.hard of the quota, which the library never changes
	Regular corev1.ResourceList // what is used when no VM migrates
	VMs     []string
	Owner   kubernetes.Interface // of the quota

	labels map[string]string // of the quota
}

// FleetQuota is the name of the quota of a fleet, if no option says otherwise.
const FleetQuota = "q"

// A VM of a fleet has a core and 1Gi. That is what its pod is charged.
const (
	fleetCPU    = 1015 // milli
	FleetMemory = 2773714688
)

// FleetOptions change what a fleet begins with.
type FleetOptions struct {
	Linger   time.Duration        // how long the source pod of every migration takes to end; zero: as long as it does
	Room     int                  // for how many machines the quota is large enough; zero: for those of the fleet
	More     corev1.ResourceList  // is added to the limits of the quota
	Owner    kubernetes.Interface // who creates the quota; nil: an administrator
	Quota    metav1.ObjectMeta    // name and labels of the quota
	Prepared func(*Fleet)         // is called when the namespace is there; nil: nothing is
	Create   func(*Fleet)         // creates the quota; nil: the owner does
}

// Charge is what n virtual machines of a fleet are charged.
func Charge(n int) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(int64(n)*fleetCPU, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(int64(n)*FleetMemory, resource.DecimalSI),
	}
}

// Fleet creates a fleet of n virtual machines, vm0 and so on, and returns when they run.
func (s *Stage) Fleet(t try.T, name string, n int, options FleetOptions) *Fleet {
	t.Helper()
	f := &Fleet{Cluster: s.Cluster(t, name), Regular: Charge(n), Static: Charge(cmp.Or(options.Room, n)), Owner: options.Owner}
	for name, more := range options.More {
		f.Static[name] = amounts.Plus(f.Static[name], more)
	}
	if f.Owner == nil {
		f.Owner = s.Client
	}
	if options.Prepared != nil {
		options.Prepared(f)
	}
	if options.Create != nil {
		options.Create(f)
	} else {
		rq := &corev1.ResourceQuota{ObjectMeta: options.Quota, Spec: corev1.ResourceQuotaSpec{Hard: f.Static.DeepCopy()}}
		rq.Name = cmp.Or(rq.Name, FleetQuota)
		try.Must(f.Owner.CoreV1().ResourceQuotas(f.namespace).Create(t.Context(), rq, metav1.CreateOptions{}))(t)
	}
	f.Enforces(f.Static)
	f.labels = f.State().Quotas[0].Labels
	for i := range n {
		vmi := virt.NewVMI(f.namespace, fmt.Sprint("vm", i), 1, *resource.NewQuantity(1<<30, resource.BinarySI))
		if options.Linger > 0 {
			metav1.SetMetaDataAnnotation(&vmi.ObjectMeta, sim.LingerAnnotation, options.Linger.String())
		}
		f.CreateVMI(vmi)
		f.VMs = append(f.VMs, vmi.Name)
	}
	f.Await("all VMs run", func(s scenario.State) bool {
		return len(s.VMIs) == n && !slices.ContainsFunc(s.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return !vmi.IsRunning() })
	})
	return f
}

// With returns the same fleet, which fails t: for a goroutine of [try.Go].
func (f *Fleet) With(t try.T) *Fleet {
	fleet, cluster := *f, *f.Cluster
	cluster.T, fleet.Cluster = t, &cluster
	return &fleet
}

// Migrate creates migrations of the first machines, m0 of vm0 and so on, which go on as goes says.
func (f *Fleet) Migrate(n int, goes string) (names []string) {
	f.Helper()
	for i := range n {
		f.CreateMigration(scenario.Migrate{Name: fmt.Sprint("m", i), VM: f.VMs[i], Goes: goes})
		names = append(names, fmt.Sprint("m", i))
	}
	return names
}

// Evacuate drains a node, waits until none of the fleet's VMs is on it, and undrains it.
func (f *Fleet) Evacuate(node string) {
	f.Helper()
	f.Drain(node)
	f.Await(node+" is empty", func(s scenario.State) bool { return s.Empty(node) })
	f.Undrain(node)
}

// Quota returns the quota, as the API server has it.
func (f *Fleet) Quota(t try.T) *corev1.ResourceQuota {
	t.Helper()
	list := try.Must(f.Client().CoreV1().ResourceQuotas(f.namespace).List(t.Context(), metav1.ListOptions{}))(t)
	require.Len(t, list.Items, 1)
	return &list.Items[0]
}

// Annotate sets an annotation of the quota. Of the value nil, it removes it.
func (f *Fleet) Annotate(name string, value any) {
	f.Helper()
	try.Must(f.Owner.CoreV1().ResourceQuotas(f.namespace).Patch(f.Context(), f.Quota(f).Name, types.MergePatchType,
		[]byte(Spelled(annotated(name, value))), metav1.PatchOptions{}))(f)
}

// Disable turns the kill switch of the quota on, or off.
func (f *Fleet) Disable(on bool) {
	f.Helper()
	f.Annotate(applier.DisabledAnnotation, map[bool]any{true: "true", false: nil}[on])
}

// Plus returns the static limits, and those of n migrations.
func (f *Fleet) Plus(n int) corev1.ResourceList {
	more := Charge(n)
	more[corev1.ResourcePods] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	return amounts.Each(f.Static, more, amounts.Plus)
}

// Raised waits until a limit of the quota is enforced that is above spec.hard.
func (f *Fleet) Raised() {
	f.Helper()
	f.Await("the limit is raised", scenario.State.Raised)
}

// Enforces waits until these limits are enforced, to the byte.
func (f *Fleet) Enforces(limits corev1.ResourceList) {
	f.Helper()
	f.Await("the limits "+Spelled(limits)+" are enforced", func(s scenario.State) bool {
		return len(s.Quotas) == 1 && Spelled(s.Quotas[0].Status.Hard) == Spelled(limits)
	})
}

// AwaitRest waits until no VM migrates, spec.hard and status.hard are the static limits to
// the byte, the quota has no annotations but those that left names, and its labels are what they
// were, the usage is regular, and the ledger has no record.
func (f *Fleet) AwaitRest(left ...string) {
	f.Helper()
	f.Await("all is as before", func(s scenario.State) bool {
		if len(s.Quotas) != 1 || s.Ledger != nil || !AllOver(s) {
			return false
		}
		rq := s.Quotas[0]
		return Spelled(rq.Spec.Hard) == Spelled(f.Static) && Spelled(rq.Status.Hard) == Spelled(f.Static) &&
			slices.Equal(slices.Sorted(maps.Keys(rq.Annotations)), left) && maps.Equal(rq.Labels, f.labels) &&
			quota.Equal(rq.Status.Used, f.Regular)
	})
}

// AllOver reports whether no migration is under way.
func AllOver(s scenario.State) bool {
	return !slices.ContainsFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return !m.IsFinal() })
}
