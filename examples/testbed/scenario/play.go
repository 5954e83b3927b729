package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
)

// Play plays a scenario and returns how it ended. An error names the step that could not
// be taken, or says what is not as it should be in the end.
func Play(ctx context.Context, s *Scenario, c Cluster) (End, error) {
	p := &play{scenario: s, cluster: c, static: map[string]corev1.ResourceList{}}
	for i, step := range s.Steps {
		if err := p.take(ctx, step); err != nil {
			return End{}, fmt.Errorf("steps[%d]: %w", i, err)
		}
	}
	return p.end(ctx)
}

// A play is a scenario on its way.
type play struct {
	scenario *Scenario
	cluster  Cluster
	static   map[string]corev1.ResourceList // by quota, as the file gave it last
}

func (p *play) take(ctx context.Context, step Step) error {
	switch {
	case step.Quota != nil:
		return p.createQuota(ctx, *step.Quota)
	case step.LimitRange != nil:
		return p.createLimitRange(ctx, *step.LimitRange)
	case step.VM != nil:
		return p.startVMs(ctx, *step.VM)
	case step.Pod != nil:
		return p.createPod(ctx, *step.Pod)
	case step.Migrate != nil:
		return p.cluster.CreateMigration(ctx, *step.Migrate)
	case step.HotPlug != nil:
		return p.cluster.HotPlug(ctx, *step.HotPlug)
	case step.Attach != "":
		return p.cluster.SetUtilityVolumes(ctx, step.Attach, "utility")
	case step.Detach != "":
		return p.cluster.SetUtilityVolumes(ctx, step.Detach)
	case step.Template != nil:
		return p.createTemplate(ctx, *step.Template)
	case step.Resize != nil:
		return p.resize(ctx, *step.Resize)
	case step.Drain != "":
		return p.cluster.Drain(ctx, step.Drain)
	case step.Undrain != "":
		return p.cluster.Undrain(ctx, step.Undrain)
	case step.Overhead != nil:
		return p.cluster.SetOverhead(ctx, *step.Overhead)
	case step.Edit != nil:
		return p.edit(ctx, *step.Edit)
	case step.KillSwitch != nil:
		return p.turn(ctx, *step.KillSwitch)
	case step.Ledger != nil:
		return p.spoilLedger(ctx, *step.Ledger)
	case step.Delete != nil:
		return p.delete(ctx, *step.Delete)
	case step.Await != nil:
		return p.until(ctx, func(s State) bool { return s.satisfies(*step.Await) })
	case step.Rest:
		return p.cluster.Rest(ctx)
	default:
		return nil
	}
}

func (p *play) createQuota(ctx context.Context, q Quota) error {
	rq := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: q.Name},
		Spec:       corev1.ResourceQuotaSpec{Hard: q.Hard.DeepCopy(), Scopes: q.Scopes},
	}
	namespace := p.cluster.Namespace()
	if _, err := p.cluster.Client().CoreV1().ResourceQuotas(namespace).Create(ctx, rq, metav1.CreateOptions{}); err != nil {
		return err
	}
	p.static[q.Name] = q.Hard
	return p.until(ctx, func(s State) bool {
		rq, ok := named(s.Quotas, q.Name)
		return ok && len(rq.Status.Hard) == len(rq.Spec.Hard)
	})
}

func (p *play) createLimitRange(ctx context.Context, l LimitRange) error {
	lr := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: l.Name},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Default: l.Default.DeepCopy(),
			// What is not said here would be the same as Default.
			DefaultRequest: zeros(l.Default),
		}}},
	}
	_, err := p.cluster.Client().CoreV1().LimitRanges(p.cluster.Namespace()).Create(ctx, lr, metav1.CreateOptions{})
	return err
}

func zeros(list corev1.ResourceList) corev1.ResourceList {
	zero := corev1.ResourceList{}
	for name := range list {
		q := list[name].DeepCopy()
		q.Sub(list[name])
		zero[name] = q
	}
	return zero
}

// startVMs starts one VM after the other, so that they are spread evenly over the nodes.
func (p *play) startVMs(ctx context.Context, vm VM) error {
	for _, name := range vm.names() {
		vmi := NewVMI(p.cluster.Namespace(), name, vm.Cores, vm.Memory)
		vmi.Spec.Domain.Resources.Limits = vm.Limits.DeepCopy()
		if vm.Template != "" {
			vmi.Spec.ResourceClaims = []kubevirtv1.VirtualMachineInstanceResourceClaim{{Name: "devices", ResourceClaimTemplateName: &vm.Template}}
		}
		if err := p.cluster.CreateVMI(ctx, vmi); err != nil {
			return err
		}
		if vm.Refused {
			continue
		}
		err := p.until(ctx, func(s State) bool {
			vmi, ok := named(s.VMIs, name)
			return ok && vmi.Status.Phase == kubevirtv1.Running && len(vmi.Status.ActivePods) == 1
		})
		if err != nil {
			return fmt.Errorf("VM %s: %w", name, err)
		}
	}
	return nil
}

// NewVMI returns a virtual machine instance that every KubeVirt charges alike: its disk is
// an empty one, because KubeVirt 1.8 runs a container disk in a container of its own.
func NewVMI(namespace, name string, sockets uint32, guest resource.Quantity) *kubevirtv1.VirtualMachineInstance {
	vmi := virt.NewVMI(namespace, name, sockets, guest)
	vmi.Spec.Volumes[0].VolumeSource = kubevirtv1.VolumeSource{
		EmptyDisk: &kubevirtv1.EmptyDiskSource{Capacity: *resource.NewQuantity(1<<30, resource.BinarySI)},
	}
	return vmi
}

func (p *play) createPod(ctx context.Context, pod Pod) error {
	created := NewPod(pod.Name, pod.Limits)
	_, err := p.cluster.Client().CoreV1().Pods(p.cluster.Namespace()).Create(ctx, created, metav1.CreateOptions{})
	switch {
	case exceeds(err) && pod.Refused:
		return nil
	case err == nil && pod.Refused:
		return fmt.Errorf("pod %s was let in, quota should have refused it", pod.Name)
	default:
		return err
	}
}

// exceeds reports whether quota has refused something.
func exceeds(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}

// NewPod returns a pod of a tenant, with one container that has these limits, and the
// same requests.
func NewPod(name string, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "registry.test/main:1",
			Resources: corev1.ResourceRequirements{Limits: limits.DeepCopy(), Requests: limits.DeepCopy()},
		}}},
	}
}

// edit writes as an admin.
func (p *play) edit(ctx context.Context, e Edit) error {
	client := p.cluster.Client().CoreV1().ResourceQuotas(p.cluster.Namespace())
	static := p.static[e.Quota].DeepCopy()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		rq, err := client.Get(ctx, e.Quota, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, hard := range []corev1.ResourceList{rq.Spec.Hard, static} {
			maps.Copy(hard, e.Set)
			for _, name := range e.Remove {
				delete(hard, name)
			}
		}
		if e.Select != "" {
			rq.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
				{ScopeName: e.Select, Operator: corev1.ScopeSelectorOpExists},
			}}
		}
		_, err = client.Update(ctx, rq, metav1.UpdateOptions{})
		return err
	})
	p.static[e.Quota] = static
	return err
}

// turn turns a kill switch on or off.
func (p *play) turn(ctx context.Context, k KillSwitch) error {
	client := p.cluster.Client().CoreV1()
	kind, name, value := "annotations", applier.DisabledAnnotation, any(nil)
	if k.Quota == "" {
		kind, name = "labels", applier.DisabledAnnotation
	}
	if k.Disabled {
		value = "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{kind: map[string]any{name: value}}})
	if err != nil {
		return err
	}
	if k.Quota == "" {
		_, err = client.Namespaces().Patch(ctx, p.cluster.Namespace(), types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	_, err = client.ResourceQuotas(p.cluster.Namespace()).Patch(ctx, k.Quota, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (p *play) spoilLedger(ctx context.Context, l Ledger) error {
	client := p.cluster.Client().CoreV1().ConfigMaps(process.Namespace)
	name := configmap.Name(p.cluster.Namespace())
	if l.Delete {
		return client.Delete(ctx, name, metav1.DeleteOptions{})
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		record, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for key := range record.Data {
			record.Data[key] = "spoiled by hand"
		}
		_, err = client.Update(ctx, record, metav1.UpdateOptions{})
		return err
	})
}

func (p *play) delete(ctx context.Context, d Delete) error {
	client, namespace := p.cluster.Client().CoreV1(), p.cluster.Namespace()
	switch {
	case d.Quota != "":
		delete(p.static, d.Quota)
		return client.ResourceQuotas(namespace).Delete(ctx, d.Quota, metav1.DeleteOptions{})
	case d.VM != "":
		return p.cluster.DeleteVMI(ctx, d.VM)
	case d.Migration != "":
		return p.cluster.DeleteMigration(ctx, d.Migration)
	case d.Pod != "":
		return client.Pods(namespace).Delete(ctx, d.Pod, metav1.DeleteOptions{})
	case d.Namespace:
		return p.cluster.DeleteNamespace(ctx)
	}
	source, err := p.source(ctx, d.Source)
	if err != nil {
		return err
	}
	return client.Pods(namespace).Delete(ctx, source.Name, metav1.DeleteOptions{})
}

// source returns the source pod of a migration.
func (p *play) source(ctx context.Context, migration string) (*corev1.Pod, error) {
	s, err := p.cluster.State(ctx)
	if err != nil {
		return nil, err
	}
	m, ok := named(s.Migrations, migration)
	if !ok {
		return nil, fmt.Errorf("migration %s is gone", migration)
	}
	source, ok := s.source(m)
	if !ok {
		return nil, fmt.Errorf("migration %s has no source pod", migration)
	}
	return source.DeepCopy(), nil
}

func (p *play) createTemplate(ctx context.Context, t Template) error {
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: t.Name}}
	template.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "devices", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: t.Class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: t.Devices,
	}}}
	_, err := p.cluster.Client().ResourceV1().ResourceClaimTemplates(p.cluster.Namespace()).Create(ctx, template, metav1.CreateOptions{})
	return err
}

// resize plays the kubelet first, and then who resizes.
func (p *play) resize(ctx context.Context, r Resize) error {
	pod, err := p.source(ctx, r.Source)
	if err != nil {
		return err
	}
	client := p.cluster.Client().CoreV1().Pods(pod.Namespace)
	pod.Status.ContainerStatuses = withActual(pod.Status.ContainerStatuses, pod.Spec.Containers)
	pod.Status.InitContainerStatuses = withActual(pod.Status.InitContainerStatuses, pod.Spec.InitContainers)
	if pod, err = client.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		return err
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, container := range containers {
			if cpu, ok := r.CPU[container.Name]; ok {
				container.Resources.Limits[corev1.ResourceCPU] = cpu
			}
		}
	}
	// What the kubelet wrote has kube-controller-manager recount, which resets the limits.
	var failed error
	err = p.until(ctx, func(State) bool {
		_, failed = client.UpdateResize(ctx, pod.Name, pod, metav1.UpdateOptions{})
		return !exceeds(failed)
	})
	return errors.Join(err, failed)
}

// withActual returns statuses of containers that have the resources which spec asks for.
func withActual(statuses []corev1.ContainerStatus, containers []corev1.Container) []corev1.ContainerStatus {
	for _, container := range containers {
		i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == container.Name })
		if i < 0 {
			i, statuses = len(statuses), append(statuses, corev1.ContainerStatus{Name: container.Name})
		}
		statuses[i].Resources = container.Resources.DeepCopy()
		statuses[i].AllocatedResources = container.Resources.Requests.DeepCopy()
	}
	return statuses
}

func (p *play) until(ctx context.Context, done func(State) bool) error {
	ok, err := p.cluster.Until(ctx, done)
	if err != nil || ok {
		return err
	}
	s, err := p.cluster.State(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("it does not come about; now there is %+v", s.end())
}

// end waits until everything is as it should be, and then whether it stays so.
func (p *play) end(ctx context.Context) (End, error) {
	if _, err := p.cluster.Until(ctx, func(s State) bool { return len(p.differences(s.end())) == 0 }); err != nil {
		return End{}, err
	}
	before, err := p.cluster.Writes(ctx)
	if err != nil {
		return End{}, err
	}
	if err := p.cluster.Rest(ctx); err != nil {
		return End{}, err
	}
	s, err := p.cluster.State(ctx)
	if err != nil {
		return End{}, err
	}
	writes, err := p.cluster.Writes(ctx)
	if err != nil {
		return End{}, err
	}
	e := s.end()
	found := p.differences(e)
	if writes > before {
		found = append(found, fmt.Sprintf("quotas are written at rest: %d times", writes-before))
	}
	want := p.scenario.End
	switch {
	case want.Writes != nil:
		e.Writes = writes
		if writes != *want.Writes {
			found = append(found, fmt.Sprintf("quotas were written %d times, should be %d", writes, *want.Writes))
		}
	case want.WritesAtMost > 0 && writes > want.WritesAtMost:
		found = append(found, fmt.Sprintf("quotas were written %d times, should be no more than %d", writes, want.WritesAtMost))
	}
	if len(found) > 0 {
		return e, fmt.Errorf("the end is wrong:\n  %s\nthere is %+v", strings.Join(found, "\n  "), e)
	}
	return e, nil
}
