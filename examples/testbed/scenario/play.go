package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
)

// Play plays a scenario and returns how it ended. It fails c with the step that could not be
// taken, or with what is not as it should be in the end.
func Play(s *Scenario, c Cluster) End {
	p := &play{Cluster: c, scenario: s, static: map[string]corev1.ResourceList{}}
	for i, step := range s.Steps {
		p.what = fmt.Sprintf("steps[%d]", i)
		p.take(step)
	}
	return p.end()
}

// A play is a scenario on its way.
type play struct {
	Cluster
	scenario *Scenario
	what     string                         // is being done
	static   map[string]corev1.ResourceList // by quota, as the file gave it last
}

// Errorf says what was being done.
func (p *play) Errorf(format string, args ...any) {
	p.Cluster.Errorf("%s: %s", p.what, fmt.Sprintf(format, args...))
}

func (p *play) take(step Step) {
	switch {
	case step.Quota != nil:
		p.createQuota(*step.Quota)
	case step.LimitRange != nil:
		p.createLimitRange(*step.LimitRange)
	case step.Claim != nil:
		p.createClaim(*step.Claim)
	case step.VM != nil:
		p.startVMs(*step.VM)
	case step.Pod != nil:
		p.createPod(*step.Pod)
	case step.Migrate != nil:
		p.CreateMigration(*step.Migrate)
	case step.HotPlug != nil:
		p.HotPlug(*step.HotPlug)
	case step.Attach != "":
		p.SetUtilityVolumes(step.Attach, "utility")
	case step.Detach != "":
		p.SetUtilityVolumes(step.Detach)
	case step.Backup != nil:
		p.SetBackup(step.Backup.VM, !step.Backup.Ended)
	case step.Refuse != "", step.Relent:
		p.RefusePods(step.Refuse)
	case step.Template != nil:
		p.createTemplate(*step.Template)
	case step.Resize != nil:
		p.resize(*step.Resize)
	case step.Drain != "":
		p.Drain(step.Drain)
	case step.Undrain != "":
		p.Undrain(step.Undrain)
	case step.Overhead != nil:
		p.SetOverhead(*step.Overhead)
	case step.Edit != nil:
		p.edit(*step.Edit)
	case step.KillSwitch != nil:
		p.turn(*step.KillSwitch)
	case step.Ledger != nil:
		p.spoilLedger(*step.Ledger)
	case step.Delete != nil:
		p.delete(*step.Delete)
	case step.Await != nil:
		p.until(func(s State) bool { return s.satisfies(*step.Await) })
	case step.Rest:
		p.Rest()
	}
}

func (p *play) createQuota(q Quota) {
	rq := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: q.Name},
		Spec:       corev1.ResourceQuotaSpec{Hard: q.Hard.DeepCopy(), Scopes: q.Scopes},
	}
	try.Must(p.Client().CoreV1().ResourceQuotas(p.Namespace()).Create(p.Context(), rq, metav1.CreateOptions{}))(p)
	p.static[q.Name] = q.Hard
	p.until(func(s State) bool {
		rq, ok := named(s.Quotas, q.Name)
		return ok && len(rq.Status.Hard) == len(rq.Spec.Hard)
	})
}

func (p *play) createLimitRange(l LimitRange) {
	zeros := corev1.ResourceList{} // what is not said here would be the same as Default
	for name := range l.Default {
		zeros[name] = resource.Quantity{}
	}
	lr := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: l.Name},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Default: l.Default.DeepCopy(), DefaultRequest: zeros,
		}}},
	}
	try.Must(p.Client().CoreV1().LimitRanges(p.Namespace()).Create(p.Context(), lr, metav1.CreateOptions{}))(p)
}

func (p *play) createClaim(c Claim) {
	claims := p.Client().CoreV1().PersistentVolumeClaims(p.Namespace())
	pvc := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: c.Name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: c.Storage}},
		},
	}
	pvc = try.Must(claims.Create(p.Context(), pvc, metav1.CreateOptions{}))(p)
	pvc.Status.Phase = corev1.ClaimBound
	pvc.Status.AccessModes, pvc.Status.Capacity = pvc.Spec.AccessModes, pvc.Spec.Resources.Requests
	try.Must(claims.UpdateStatus(p.Context(), pvc, metav1.UpdateOptions{}))(p)
}

// startVMs starts one VM after the other, so that they are spread evenly over the nodes.
func (p *play) startVMs(vm VM) {
	names := []string{vm.Name}
	if vm.Count > 1 {
		names = nil
		for i := range vm.Count {
			names = append(names, fmt.Sprint(vm.Name, i+1))
		}
	}
	for _, name := range names {
		vmi := virt.NewVMI(p.Namespace(), name, vm.Cores, vm.Memory)
		vmi.Spec.Domain.Resources.Limits = vm.Limits.DeepCopy()
		if vm.Template != "" {
			vmi.Spec.ResourceClaims = []kubevirtv1.VirtualMachineInstanceResourceClaim{{Name: "devices", ResourceClaimTemplateName: &vm.Template}}
		}
		devices := &vmi.Spec.Domain.Devices
		if vm.TPM {
			devices.TPM = &kubevirtv1.TPMDevice{Persistent: &vm.TPM}
		}
		if vm.Volume != "" {
			source := &kubevirtv1.PersistentVolumeClaimVolumeSource{Hotpluggable: true}
			source.ClaimName = vm.Volume
			vmi.Spec.Volumes = append(vmi.Spec.Volumes, kubevirtv1.Volume{
				Name: vm.Volume, VolumeSource: kubevirtv1.VolumeSource{PersistentVolumeClaim: source},
			})
			devices.Disks = append(devices.Disks, kubevirtv1.Disk{
				Name: vm.Volume, DiskDevice: kubevirtv1.DiskDevice{Disk: &kubevirtv1.DiskTarget{Bus: kubevirtv1.DiskBusSCSI}},
			})
		}
		p.CreateVMI(vmi)
		if vm.Refused {
			continue
		}
		p.until(func(s State) bool {
			vmi, ok := named(s.VMIs, name)
			return ok && vmi.Status.Phase == kubevirtv1.Running && len(vmi.Status.ActivePods) == 1
		})
	}
}

func (p *play) createPod(pod Pod) {
	_, err := p.Client().CoreV1().Pods(p.Namespace()).Create(p.Context(), NewPod(pod.Name, pod.Limits), metav1.CreateOptions{})
	if pod.Refused {
		require.True(p, Exceeds(err), "pod %s: %v, quota should have refused it", pod.Name, err)
		return
	}
	require.NoError(p, err)
}

// Exceeds reports whether quota has refused something.
func Exceeds(err error) bool {
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
func (p *play) edit(e Edit) {
	client := p.Client().CoreV1().ResourceQuotas(p.Namespace())
	static := p.static[e.Quota].DeepCopy()
	require.NoError(p, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		rq, err := client.Get(p.Context(), e.Quota, metav1.GetOptions{})
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
		_, err = client.Update(p.Context(), rq, metav1.UpdateOptions{})
		return err
	}))
	p.static[e.Quota] = static
}

// turn turns a kill switch on or off.
func (p *play) turn(k KillSwitch) {
	kind, value := "annotations", any(nil)
	if k.Quota == "" {
		kind = "labels"
	}
	if k.Disabled {
		value = "true"
	}
	patch := try.Must(json.Marshal(map[string]any{"metadata": map[string]any{kind: map[string]any{applier.DisabledAnnotation: value}}}))(p)
	if k.Quota == "" {
		try.Must(p.Client().CoreV1().Namespaces().Patch(p.Context(), p.Namespace(), types.MergePatchType, patch, metav1.PatchOptions{}))(p)
		return
	}
	quotas := p.Client().CoreV1().ResourceQuotas(p.Namespace())
	try.Must(quotas.Patch(p.Context(), k.Quota, types.MergePatchType, patch, metav1.PatchOptions{}))(p)
}

func (p *play) spoilLedger(l Ledger) {
	client, name := p.Client().CoreV1().ConfigMaps(process.Namespace), configmap.Name(p.Namespace())
	if l.Delete {
		require.NoError(p, client.Delete(p.Context(), name, metav1.DeleteOptions{}))
		return
	}
	require.NoError(p, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		record, err := client.Get(p.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for key := range record.Data {
			record.Data[key] = "spoiled by hand"
		}
		_, err = client.Update(p.Context(), record, metav1.UpdateOptions{})
		return err
	}))
}

func (p *play) delete(d Delete) {
	client, pod := p.Client().CoreV1(), d.Pod
	switch {
	case d.Quota != "":
		delete(p.static, d.Quota)
		require.NoError(p, client.ResourceQuotas(p.Namespace()).Delete(p.Context(), d.Quota, metav1.DeleteOptions{}))
	case d.VM != "":
		p.DeleteVMI(d.VM)
	case d.Migration != "":
		p.DeleteMigration(d.Migration)
	case d.Namespace:
		p.DeleteNamespace()
	case d.Source != "":
		pod = p.source(d.Source).Name
		fallthrough
	default:
		require.NoError(p, client.Pods(p.Namespace()).Delete(p.Context(), pod, metav1.DeleteOptions{}))
	}
}

// source returns the source pod of a migration.
func (p *play) source(migration string) *corev1.Pod {
	s := p.State()
	m, ok := named(s.Migrations, migration)
	require.True(p, ok, "migration %s is gone", migration)
	source, ok := s.source(m)
	require.True(p, ok, "migration %s has no source pod", migration)
	return source.DeepCopy()
}

func (p *play) createTemplate(t Template) {
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: t.Name}}
	template.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "devices", Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: t.Class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: t.Devices,
	}}}
	try.Must(p.Client().ResourceV1().ResourceClaimTemplates(p.Namespace()).Create(p.Context(), template, metav1.CreateOptions{}))(p)
}

// resize plays the kubelet first, and then who resizes.
func (p *play) resize(r Resize) {
	pod := p.source(r.Source)
	client := p.Client().CoreV1().Pods(pod.Namespace)
	pod.Status.ContainerStatuses = withActual(pod.Status.ContainerStatuses, pod.Spec.Containers)
	pod.Status.InitContainerStatuses = withActual(pod.Status.InitContainerStatuses, pod.Spec.InitContainers)
	pod = try.Must(client.UpdateStatus(p.Context(), pod, metav1.UpdateOptions{}))(p)
	var err error
	for _, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if cpu, ok := r.CPU[container.Name]; ok {
			container.Resources.Limits[corev1.ResourceCPU] = cpu
		}
	}
	// What the kubelet wrote has kube-controller-manager recount, which resets the limits.
	p.until(func(State) bool {
		_, err = client.UpdateResize(p.Context(), pod.Name, pod, metav1.UpdateOptions{})
		return !Exceeds(err)
	})
	require.NoError(p, err)
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

func (p *play) until(done func(State) bool) {
	if !p.Until(done) {
		require.Fail(p, "waited in vain", "now there is %v", p.State())
	}
}

// end waits until everything is as it should be, and then whether it stays so.
func (p *play) end() End {
	p.Until(func(s State) bool { return len(p.differences(s.end())) == 0 })
	before := p.Writes()
	p.Rest()
	e := p.State().end()
	found, writes, want := p.differences(e), p.Writes(), p.scenario.End
	if writes > before {
		found = append(found, fmt.Sprintf("quotas are written at rest: %d times", writes-before))
	}
	switch {
	case want.Writes != nil:
		e.Writes = writes
		if writes != *want.Writes {
			found = append(found, fmt.Sprintf("quotas were written %d times, should be %d", writes, *want.Writes))
		}
	case want.WritesAtMost > 0 && writes > want.WritesAtMost:
		found = append(found, fmt.Sprintf("quotas were written %d times, should be no more than %d", writes, want.WritesAtMost))
	}
	require.Empty(p, found, "the end is wrong; there is %+v", e)
	return e
}
