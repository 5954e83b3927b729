package onbed

import (
	"cmp"
	_ "embed" // for a policy
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

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
