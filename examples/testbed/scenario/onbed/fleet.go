package onbed

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/quota"
)

// A Fleet is a namespace with virtual machines that fill its quota to the byte, if no
// option says otherwise.
type Fleet struct {
	*Cluster
	Static  corev1.ResourceList // spec.hard of the quota, which the library never changes
	Regular corev1.ResourceList // what is used when no VM migrates
	VMs     []string
}

// FleetQuota is the name of the quota of a fleet.
const FleetQuota = "q"

// A VM of a fleet has a core and 1Gi. That is what its pod is charged.
const (
	fleetCPU    = 1015 // milli
	FleetMemory = 2773714688
)

// A FleetOption changes what a fleet begins with.
type FleetOption func(*corev1.ResourceQuota, []*kubevirtv1.VirtualMachineInstance)

// Linger makes the source pod of every migration take so long to end.
func Linger(d time.Duration) FleetOption {
	return func(_ *corev1.ResourceQuota, vmis []*kubevirtv1.VirtualMachineInstance) {
		for _, vmi := range vmis {
			metav1.SetMetaDataAnnotation(&vmi.ObjectMeta, sim.LingerAnnotation, d.String())
		}
	}
}

// Label gives the quota a label.
func Label(name, value string) FleetOption {
	return func(rq *corev1.ResourceQuota, _ []*kubevirtv1.VirtualMachineInstance) {
		metav1.SetMetaDataLabel(&rq.ObjectMeta, name, value)
	}
}

// RoomFor makes the quota large enough for so many virtual machines.
func RoomFor(n int) FleetOption {
	return func(rq *corev1.ResourceQuota, _ []*kubevirtv1.VirtualMachineInstance) { rq.Spec.Hard = fleetCharge(n) }
}

// More adds to the limits of the quota.
func More(limits corev1.ResourceList) FleetOption {
	return func(rq *corev1.ResourceQuota, _ []*kubevirtv1.VirtualMachineInstance) {
		for name, more := range limits {
			limit := rq.Spec.Hard[name]
			limit.Add(more)
			rq.Spec.Hard[name] = limit
		}
	}
}

// fleetCharge is what n virtual machines of a fleet are charged.
func fleetCharge(n int) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(int64(n)*fleetCPU, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(int64(n)*FleetMemory, resource.DecimalSI),
	}
}

// Fleet creates a fleet of n virtual machines, and returns when they run.
func (s *Stage) Fleet(ctx context.Context, name string, n int, options ...FleetOption) (*Fleet, error) {
	namespace, err := s.Bed.NewNamespace(ctx, name+"-")
	if err != nil {
		return nil, err
	}
	f := &Fleet{Cluster: &Cluster{stage: s, namespace: namespace}, Regular: fleetCharge(n)}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: FleetQuota}, Spec: corev1.ResourceQuotaSpec{Hard: fleetCharge(n)}}
	var vmis []*kubevirtv1.VirtualMachineInstance
	for i := range n {
		vmi := scenario.NewVMI(namespace, fmt.Sprintf("vm%d", i+1), 1, *resource.NewQuantity(1<<30, resource.BinarySI))
		vmis = append(vmis, vmi)
		f.VMs = append(f.VMs, vmi.Name)
	}
	for _, option := range options {
		option(rq, vmis)
	}
	f.Static = rq.Spec.Hard.DeepCopy()
	if _, err := s.Client.CoreV1().ResourceQuotas(namespace).Create(ctx, rq, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if err := f.Await(ctx, "the quota is enforced", func(s scenario.State) bool {
		return len(s.Quotas) == 1 && quota.Equal(s.Quotas[0].Status.Hard, f.Static)
	}); err != nil {
		return nil, err
	}
	for _, vmi := range vmis {
		if err := f.CreateVMI(ctx, vmi); err != nil {
			return nil, err
		}
	}
	return f, f.Await(ctx, "all VMs run", func(s scenario.State) bool {
		return len(s.VMIs) == n && !slices.ContainsFunc(s.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return !vmi.IsRunning() })
	})
}

// Await waits until done of the State. Its error says what was waited for, and what there is.
func (f *Fleet) Await(ctx context.Context, what string, done func(scenario.State) bool) error {
	ok, err := f.Until(ctx, done)
	if err != nil || ok {
		return err
	}
	s, err := f.State(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("namespace %s: waited in vain until %s: %s", f.namespace, what, describe(s))
}

// describe says what there is, for people.
func describe(s scenario.State) string {
	phases := map[string]int{}
	for _, m := range s.Migrations {
		phases[string(m.Status.Phase)]++
	}
	text := fmt.Sprintf("%d VMs, migrations %v, ledger %v", len(s.VMIs), phases, s.Ledger != nil)
	for _, rq := range s.Quotas {
		spec, _ := json.Marshal(rq.Spec.Hard) // a list of quantities
		status, _ := json.Marshal(rq.Status)
		text += fmt.Sprintf(", quota %s with spec.hard %s, status %s, annotations %v", rq.Name, spec, status, rq.Annotations)
	}
	return text
}

// Evacuate drains a node, waits until none of the fleet's VMs is on it, and undrains it.
func (f *Fleet) Evacuate(ctx context.Context, node string) error {
	if err := persist(ctx, func() error { return f.Drain(ctx, node) }); err != nil {
		return err
	}
	err := f.Await(ctx, node+" is empty", func(s scenario.State) bool {
		return !slices.ContainsFunc(s.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Status.NodeName == node })
	})
	if err != nil {
		return err
	}
	return persist(ctx, func() error { return f.Undrain(ctx, node) })
}

// persist tries again while the API server is away.
func persist(ctx context.Context, do func() error) error {
	for end := time.Now().Add(patience); ; {
		err := do()
		if err == nil || time.Now().After(end) {
			return err
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// AwaitRest waits until no VM migrates, spec.hard and status.hard are the static limits to
// the byte, no annotation of the library is left, and the ledger has no record.
func (f *Fleet) AwaitRest(ctx context.Context) error {
	return f.Await(ctx, "all is as before", f.atRest)
}

func (f *Fleet) atRest(s scenario.State) bool {
	if len(s.Quotas) != 1 || s.Ledger != nil {
		return false
	}
	for _, m := range s.Migrations {
		if !m.IsFinal() {
			return false
		}
	}
	rq := s.Quotas[0]
	return same(rq.Spec.Hard, f.Static) && same(rq.Status.Hard, f.Static) && len(s.Traces(FleetQuota)) == 0 &&
		quota.Equal(rq.Status.Used, f.Regular)
}

// same reports whether two lists are written alike, to the byte.
func same(a, b corev1.ResourceList) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	other, err := json.Marshal(b)
	return err == nil && string(one) == string(other)
}
