package migration_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A scene is a namespace in which virtual machines run and migrate. Its objects have
// the shapes of the recordings; each is a minute younger than the one before. The UID
// of an object called x is uid-x.
type scene struct {
	migration.Snapshot
	t      testing.TB
	clock  time.Time
	vm     *kubevirtv1.VirtualMachineInstance // vm1
	source *corev1.Pod                        // that it runs in
}

// newScene is one VMI, vm1, that runs in one pod, source, and costs onePod.
func newScene(t testing.TB) *scene {
	s := &scene{t: t, clock: start}
	s.vm = s.vmi("vm1")
	s.source = s.launcher(s.vm, "source", "")
	return s
}

// play runs each scene as a test of its own.
func play(t *testing.T, scenes map[string]func(s *scene)) {
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) { scene(newScene(t)) })
	}
}

func (s *scene) meta(name string) metav1.ObjectMeta {
	s.clock = s.clock.Add(time.Minute)
	return metav1.ObjectMeta{
		Name: name, Namespace: "tenant", UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(s.clock),
		Labels: map[string]string{}, Annotations: map[string]string{},
	}
}

// vmi adds a running VMI of one core and 1Gi.
func (s *scene) vmi(name string) *kubevirtv1.VirtualMachineInstance {
	guest, overhead := resource.MustParse("1Gi"), resource.MustParse("270Mi")
	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: s.meta(name)}
	vmi.Spec.Architecture = "amd64"
	vmi.Spec.Domain.CPU = &kubevirtv1.CPU{Cores: 1, Sockets: 1, Threads: 1, MaxSockets: 4}
	vmi.Spec.Domain.Memory = &kubevirtv1.Memory{Guest: &guest}
	vmi.Spec.Domain.Resources.Requests = list("memory=1Gi")
	vmi.Status.Phase = kubevirtv1.Running
	vmi.Status.NodeName = "node01"
	vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Cores: 1, Sockets: 1, Threads: 1}
	vmi.Status.Memory = &kubevirtv1.MemoryStatus{GuestAtBoot: &guest, GuestCurrent: &guest, GuestRequested: &guest, MemoryOverhead: &overhead}
	vmi.Status.Conditions = []kubevirtv1.VirtualMachineInstanceCondition{
		{Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue},
		{Type: kubevirtv1.VirtualMachineInstanceIsMigratable, Status: corev1.ConditionTrue},
	}
	s.VMIs = append(s.VMIs, vmi)
	return vmi
}

// launcher adds a running virt-launcher pod of vmi that costs onePod. If it is the
// target of a migration, job is the UID of the VMIM.
func (s *scene) launcher(vmi *kubevirtv1.VirtualMachineInstance, name string, job types.UID) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: s.meta(name)}
	pod.Labels[kubevirtv1.AppLabel] = "virt-launcher"
	pod.Labels[kubevirtv1.CreatedByLabel] = string(vmi.UID)
	pod.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "283115520" // 270Mi
	if job != "" {
		pod.Labels[kubevirtv1.MigrationJobLabel] = string(job)
		pod.Annotations[kubevirtv1.MigrationJobNameAnnotation] = strings.TrimPrefix(string(job), "uid-")
	}
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)}
	always := corev1.ContainerRestartPolicyAlways
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "guest-console-log", RestartPolicy: &always,
		Resources: corev1.ResourceRequirements{Requests: list("cpu=5m memory=35M"), Limits: list("cpu=15m memory=60M")},
	}}
	devices := " devices.kubevirt.io/kvm=1 devices.kubevirt.io/tun=1 devices.kubevirt.io/vhost-net=1"
	pod.Spec.Containers = []corev1.Container{{
		Name: "compute",
		Resources: corev1.ResourceRequirements{
			Requests: list("cpu=100m memory=1294Mi ephemeral-storage=50M" + devices),
			Limits:   list("cpu=1 memory=2588Mi" + devices),
		},
	}}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.QOSClass = corev1.PodQOSBurstable
	s.Pods = append(s.Pods, pod)
	return pod
}

// vmim adds a migration of vmi.
func (s *scene) vmim(vmi *kubevirtv1.VirtualMachineInstance, name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	m := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: s.meta(name)}
	m.Labels[kubevirtv1.MigrationSelectorLabel] = vmi.Name
	m.Finalizers = []string{kubevirtv1.VirtualMachineInstanceMigrationFinalizer}
	m.Spec.VMIName = vmi.Name
	m.Status.Phase = phase
	if phase != kubevirtv1.MigrationPhaseUnset {
		m.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{SourcePod: "source"}
	}
	s.Migrations = append(s.Migrations, m)
	return m
}

// refused adds a migration of vmi whose target pod quota refuses.
func (s *scene) refused(vmi *kubevirtv1.VirtualMachineInstance, name string) *kubevirtv1.VirtualMachineInstanceMigration {
	m := s.vmim(vmi, name, kubevirtv1.MigrationPending)
	condition(m, rejected, corev1.ConditionTrue)
	return m
}

const (
	rejected       = kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota
	utilityVolumes = kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes
	backup         = kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup
)

func condition(m *kubevirtv1.VirtualMachineInstanceMigration, c kubevirtv1.VirtualMachineInstanceMigrationConditionType, status corev1.ConditionStatus) {
	m.Status.Conditions = append(m.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: c, Status: status})
}

// running adds a migration of vmi from source, with its target pod.
func (s *scene) running(vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod, name, target string) (*kubevirtv1.VirtualMachineInstanceMigration, *corev1.Pod) {
	m := s.vmim(vmi, name, kubevirtv1.MigrationRunning)
	m.Status.MigrationState.SourcePod = source.Name
	pod := s.launcher(vmi, target, m.UID)
	vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID: m.UID, SourcePod: source.Name, TargetPod: pod.Name,
		SourceNode: "node01", TargetNode: "node02", TargetMemoryOverhead: vmi.Status.Memory.MemoryOverhead,
	}
	return m, pod
}

// succeed ends the migration that vmi's state is about: the VMI first, then m.
func succeed(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration) {
	vmi.Status.MigrationState.Completed = true
	vmi.Status.NodeName = "node02"
	m.Status.Phase = kubevirtv1.MigrationSucceeded
	m.Status.MigrationState = vmi.Status.MigrationState.DeepCopy()
}

// fail is the other end.
func fail(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration) {
	vmi.Status.MigrationState.Completed, vmi.Status.MigrationState.Failed = true, true
	m.Status.Phase = kubevirtv1.MigrationFailed
	m.Status.MigrationState = vmi.Status.MigrationState.DeepCopy()
}

func (s *scene) deleted() *metav1.Time {
	now := metav1.NewTime(s.clock)
	return &now
}

// forget takes an object out of the scene.
func (s *scene) forget(o metav1.Object) {
	gone := func(p metav1.Object) bool { return p.GetUID() == o.GetUID() }
	s.VMIs = slices.DeleteFunc(s.VMIs, func(v *kubevirtv1.VirtualMachineInstance) bool { return gone(v) })
	s.Migrations = slices.DeleteFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return gone(m) })
	s.Pods = slices.DeleteFunc(s.Pods, func(p *corev1.Pod) bool { return gone(p) })
	s.PVCs = slices.DeleteFunc(s.PVCs, func(p *corev1.PersistentVolumeClaim) bool { return gone(p) })
}

// A flight is what these tests look at in a quota.Migration. What it holds is never
// left open.
type flight struct {
	uid   types.UID
	state quota.State
	surge corev1.ResourceList
	held  corev1.ResourceList
}

// lines is what there is to compare of f, an amount a line.
func (f flight) lines() []string {
	lines := []string{fmt.Sprintf("%s is %s", f.uid, f.state)}
	for _, amount := range strings.Fields(text(f.surge)) {
		lines = append(lines, fmt.Sprintf("%s claims %s", f.uid, amount))
	}
	for _, amount := range strings.Fields(text(f.held)) {
		lines = append(lines, fmt.Sprintf("%s holds %s", f.uid, amount))
	}
	return lines
}

// expect compares what is in flight in s, whose invariants hold, with want.
func (s *scene) expect(want ...flight) {
	s.t.Helper()
	got := s.expectOnly(want...)
	if err := broken(s.Snapshot, got); err != nil {
		s.t.Error(err)
	}
}

// expectOnly is expect for snapshots whose invariants take too long to check.
func (s *scene) expectOnly(want ...flight) []quota.Migration {
	s.t.Helper()
	got := migration.InFlight(s.Snapshot)
	var wanted, flights []string
	for _, f := range want {
		wanted = append(wanted, f.lines()...)
	}
	for _, m := range got {
		flights = append(flights, flight{m.UID, m.State, m.Surge, held(m)}.lines()...)
	}
	if diff := cmp.Diff(wanted, flights); diff != "" {
		s.t.Errorf("something else is in flight (-want +got):\n%s", diff)
	}
	return got
}

// list is a ResourceList written as "limits.cpu=1015m limits.memory=2773714688".
func list(amounts string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, amount := range strings.Fields(amounts) {
		name, value, _ := strings.Cut(amount, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return l
}

// text is the opposite of list. It is the same for equal amounts.
func text(l corev1.ResourceList) string {
	amounts := make([]string, 0, len(l))
	for _, name := range slices.Sorted(maps.Keys(l)) {
		q := l[name].DeepCopy()
		amount := q.AsDec().String()
		if strings.Contains(amount, ".") {
			amount = strings.TrimRight(strings.TrimRight(amount, "0"), ".")
		}
		amounts = append(amounts, fmt.Sprintf("%s=%s", name, amount))
	}
	return strings.Join(amounts, " ")
}

// plus adds up lists; nil if all of them are.
func plus(lists ...corev1.ResourceList) corev1.ResourceList {
	var sum corev1.ResourceList
	for _, l := range lists {
		if l != nil && sum == nil {
			sum = corev1.ResourceList{}
		}
		for name, q := range l {
			total := sum[name].DeepCopy()
			total.Add(q)
			sum[name] = total
		}
	}
	return sum
}

// with is l with some amounts replaced.
func with(l corev1.ResourceList, amounts string) corev1.ResourceList {
	l = l.DeepCopy()
	maps.Copy(l, list(amounts))
	return l
}

// amounts compares quantities by their amount.
var amounts = cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 })
