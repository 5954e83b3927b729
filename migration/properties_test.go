package migration_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A dice draws a number from 0 to n-1.
type dice func(n int) int

// seededDice rolls zeros if seed is zero.
func seededDice(seed uint64) dice {
	if seed == 0 {
		return func(int) int { return 0 }
	}
	return rand.New(rand.NewPCG(seed, 0)).IntN
}

func (roll dice) flip() bool { return roll(2) == 1 }

func (roll dice) rarely() bool { return roll(8) == 7 }

func pick[T any](roll dice, from ...T) T { return from[roll(len(from))] }

// A drawer draws snapshots. Their objects are as an API server stores them: each has
// a name and a UID of its own, and no amount is negative. Beyond that they may say
// anything about each other. If it is absurd, not even that holds.
//
// Rapid draws how many objects there are, and a seed for each: so what fails shrinks
// to few and plain objects, and a snapshot costs little to draw.
type drawer struct {
	dice
	absurd bool
}

// A world is a snapshot that explains itself where a test fails.
type world struct{ migration.Snapshot }

func (w world) GoString() string {
	text, err := json.Marshal(w.Snapshot)
	return fmt.Sprintf("%s %v", text, err)
}

var (
	stored = rapid.Custom(func(t *rapid.T) world { return world{snapshot(t, false)} })
	absurd = rapid.Custom(func(t *rapid.T) world { return world{snapshot(t, true)} })
)

func snapshot(t *rapid.T, absurd bool) migration.Snapshot {
	next := func() drawer {
		return drawer{dice: seededDice(rapid.Uint64().Draw(t, "seed")), absurd: absurd}
	}
	s := migration.Snapshot{
		VMIs:           upTo(t, 2, next, drawer.vmi, "vm"),
		Migrations:     upTo(t, 4, next, drawer.vmim, "m"),
		Pods:           upTo(t, 6, next, drawer.pod, "p"),
		PVCs:           upTo(t, 3, next, drawer.pvc, "c"),
		LimitRanges:    upTo(t, 2, next, drawer.limitRange, "r"),
		Events:         upTo(t, 3, next, drawer.refusal, "e"),
		ResourceClaims: upTo(t, 3, next, drawer.resourceClaim, "d"),
	}
	d := next()
	if d.flip() {
		s.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
			kubevirtv1.AutoMemoryLimitsRatioLabel: pick(d.dice, "1.5", "3", "nonsense", "NaN", "1e300"),
		}}}
	}
	if d.flip() {
		s.Now = d.time().Time
	}
	return s
}

// upTo draws up to n objects, some of them nil if absurd.
func upTo[T any](t *rapid.T, n int, next func() drawer, draw func(drawer, string) *T, name string) []*T {
	var objects []*T
	for i := range rapid.IntRange(0, n).Draw(t, "objects") {
		d := next()
		if d.absurd && d.rarely() {
			objects = append(objects, nil)
		} else {
			objects = append(objects, draw(d, fmt.Sprintf("%s%d", name, i)))
		}
	}
	return objects
}

var dawn = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)

func (d drawer) time() metav1.Time {
	return metav1.NewTime(dawn.Add(time.Duration(d.dice(6)) * time.Second))
}

func (d drawer) meta(name string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name: name, UID: types.UID("uid-" + name), CreationTimestamp: d.time(),
		Labels: map[string]string{}, Annotations: map[string]string{},
	}
	if d.absurd && d.rarely() {
		meta.UID = pick(d.dice, "", types.UID("uid-m0"), types.UID("uid-p0"), types.UID("uid-vm0"))
	}
	if d.rarely() {
		now := d.time()
		meta.DeletionTimestamp = &now
		if d.flip() {
			grace := int64(d.dice(3))
			meta.DeletionGracePeriodSeconds = &grace
		}
	}
	return meta
}

// Those that refer to each other find each other often.
func (d drawer) vmiName() string { return pick(d.dice, "vm0", "vm0", "vm1", "vm2") }

func (d drawer) job() types.UID {
	return pick[types.UID](d.dice, "", "uid-m0", "uid-m0", "uid-m1", "uid-m2", "uid-gone")
}
func (d drawer) podName() string { return pick(d.dice, "", "p0", "p1", "p2", "p3") }
func (d drawer) pvcName() string { return pick(d.dice, "", "", "c0", "c1", "c2") }

func (d drawer) quantity() resource.Quantity {
	spellings := []string{"0", "1", "100m", "1294Mi", "2588Mi", "0.5", "1e3", "12345678901234567890", "100E", "9223372036854775807"}
	if d.absurd {
		spellings = append(spellings, "-1", "-100E", "-1294Mi", "1n")
	}
	return resource.MustParse(pick(d.dice, spellings...))
}

func (d drawer) list() corev1.ResourceList {
	if d.rarely() {
		return nil
	}
	l := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "nvidia.com/gpu"} {
		if d.flip() {
			l[name] = d.quantity()
		}
	}
	return l
}

func (d drawer) status() corev1.ConditionStatus {
	return pick(d.dice, corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionFalse)
}

func (d drawer) state() *kubevirtv1.VirtualMachineInstanceMigrationState {
	state := &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID: d.job(), SourcePod: d.podName(), TargetPod: d.podName(),
		Completed: d.flip(), Failed: d.rarely(), TargetAttachmentPodUID: pick[types.UID](d.dice, "", "", "uid-p3"),
		SourcePersistentStatePVCName: d.pvcName(), TargetPersistentStatePVCName: d.pvcName(),
	}
	if d.rarely() {
		end := d.time()
		state.EndTimestamp = &end
	}
	return state
}

func (d drawer) vmi(name string) *kubevirtv1.VirtualMachineInstance {
	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: d.meta(name)}
	vmi.Spec.Domain.Resources.Limits, vmi.Spec.Domain.Resources.Requests = d.list(), d.list()
	vmi.Spec.Domain.Resources.OvercommitGuestOverhead = d.rarely()
	if d.flip() {
		vmi.Spec.Domain.CPU = &kubevirtv1.CPU{Cores: uint32(d.dice(4)), Sockets: uint32(d.dice(3)), DedicatedCPUPlacement: d.rarely()}
		vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Cores: uint32(d.dice(4))}
	}
	if d.absurd && d.rarely() {
		vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Cores: 1 << 31, Sockets: 1 << 31, Threads: 1 << 31}
	}
	guest, overhead := d.quantity(), d.quantity()
	if d.flip() {
		vmi.Spec.Domain.Memory = &kubevirtv1.Memory{Guest: &guest}
		vmi.Status.Memory = &kubevirtv1.MemoryStatus{MemoryOverhead: &overhead}
	}
	if persistent := d.flip(); persistent {
		vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &persistent}
	}
	if d.flip() {
		vmi.Status.VolumeStatus = []kubevirtv1.VolumeStatus{{Name: "persistent-state-for-this-vm"}}
		if d.flip() {
			vmi.Status.VolumeStatus[0].PersistentVolumeClaimInfo = &kubevirtv1.PersistentVolumeClaimInfo{ClaimName: d.pvcName()}
		}
	}
	for _, c := range []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange, memoryChange} {
		if d.rarely() {
			vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: c, Status: d.status()})
		}
	}
	vmi.Status.Phase = kubevirtv1.Running
	if d.rarely() {
		vmi.Status.Phase = pick(d.dice, kubevirtv1.VmPhaseUnset, kubevirtv1.Succeeded, kubevirtv1.Failed)
	}
	if d.flip() {
		vmi.Status.MigrationState = d.state()
	}
	return vmi
}

func (d drawer) vmim(name string) *kubevirtv1.VirtualMachineInstanceMigration {
	m := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: d.meta(name)}
	m.Spec.VMIName = d.vmiName()
	m.Status.Phase = pick(d.dice, kubevirtv1.MigrationPhaseUnset, kubevirtv1.MigrationPending, kubevirtv1.MigrationPending,
		kubevirtv1.MigrationScheduling, kubevirtv1.MigrationRunning, kubevirtv1.MigrationSucceeded, kubevirtv1.MigrationFailed,
		kubevirtv1.MigrationSynchronizing)
	if d.flip() {
		condition(m, rejected, d.status())
	}
	if d.flip() {
		m.Status.MigrationState = d.state()
	}
	if d.flip() {
		m.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{
			{Phase: m.Status.Phase, PhaseTransitionTimestamp: d.time()},
		}
	}
	if d.rarely() {
		m.Spec.SendTo = &kubevirtv1.VirtualMachineInstanceMigrationSource{}
	}
	if d.rarely() {
		m.Spec.Receive = &kubevirtv1.VirtualMachineInstanceMigrationTarget{}
	}
	if d.rarely() {
		priority := kubevirtv1.PrioritySystemCritical
		m.Spec.Priority = &priority
	}
	return m
}

func (d drawer) pod(name string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: d.meta(name)}
	vmi := "uid-" + d.vmiName()
	pod.Labels[kubevirtv1.AppLabel] = pick(d.dice, "virt-launcher", "virt-launcher", "virt-launcher", "hotplug-disk", "")
	pod.Labels[kubevirtv1.CreatedByLabel] = vmi
	pod.Labels[kubevirtv1.MigrationJobLabel] = string(d.job())
	yes := true
	owner := metav1.OwnerReference{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", UID: types.UID(vmi), Controller: &yes}
	switch {
	case pod.Labels[kubevirtv1.AppLabel] == "hotplug-disk":
		owner.APIVersion, owner.Kind, owner.UID = "v1", "Pod", types.UID("uid-"+d.podName())
	case d.rarely():
		owner.UID = "uid-another"
	}
	if !d.rarely() {
		pod.OwnerReferences = []metav1.OwnerReference{owner}
	}
	pod.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = pick(d.dice, "283115520", "1", "", "-1", "99999999999999999999")
	pod.Spec.PriorityClassName = pick(d.dice, "", "", "", "high")
	pod.Spec.Containers = []corev1.Container{
		{Name: pick(d.dice, "compute", "compute", "other"), Resources: corev1.ResourceRequirements{Requests: d.list(), Limits: d.list()}},
	}
	if d.flip() {
		pod.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: d.list()}}}
	}
	if d.flip() {
		template(pod)
	}
	pod.Status.Phase = pick(d.dice, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed)
	return pod
}

func (d drawer) limitRange(name string) *corev1.LimitRange {
	r := limitRange(name, "", "")
	r.UID = types.UID("uid-" + name)
	r.Spec.Limits[0].Default, r.Spec.Limits[0].DefaultRequest = d.list(), d.list()
	return r
}

func (d drawer) pvc(name string) *corev1.PersistentVolumeClaim {
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: d.meta(name)}
	pvc.Labels[kubevirtv1.MigrationNameLabel] = pick(d.dice, "", "m0", "m1")
	pvc.Labels[persistentStateFor] = pick(d.dice, "", "vm0", "vm1")
	if yes := true; !d.rarely() {
		pvc.OwnerReferences = []metav1.OwnerReference{{Kind: "VirtualMachineInstance", UID: types.UID("uid-" + d.vmiName()), Controller: &yes}}
	}
	pvc.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: d.quantity()}
	if d.flip() {
		class := "ssd"
		pvc.Spec.StorageClassName = &class
	}
	if d.flip() {
		pvc.Status.AccessModes = []corev1.PersistentVolumeAccessMode{pick(d.dice, corev1.ReadWriteMany, corev1.ReadWriteOnce)}
	}
	return pvc
}

// refusal is one of a target pod, as KubeVirt tells it.
func (d drawer) resourceClaim(name string) *resourcev1.ResourceClaim {
	owner := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID("uid-" + d.podName())}}
	claim := (&scene{}).nics(owner, name, int64(d.dice(4)))
	claim.ObjectMeta = d.meta(name)
	claim.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Pod"))}
	claim.Annotations[podClaim] = pick(d.dice, "net", "net", "net", "other")
	return claim
}

func (d drawer) refusal(name string) *corev1.Event {
	event := refusal("", string(d.vmiName()), d.time())
	event.ObjectMeta = d.meta(name)
	asked := d.quantity()
	event.Message = refusalMessage("limits.memory=" + asked.String() + ",limits.cpu=" + pick(d.dice, "1", "2", "1e3", "nonsense", "-1"))
	if d.absurd && d.rarely() {
		event.Message = pick(d.dice, "", "requested: ", "Error creating pod: exceeded quota: , requested: ,,=,a=b, used: ")
	}
	return event
}

// same compares quantities by amount and format.
var same = cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 && a.Format == b.Format })

// TestInvariants: whatever the objects say about each other.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stored.Draw(t, "snapshot").Snapshot
		if err := broken(s, migration.InFlight(s)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOrderFree: whatever the input, there is no panic and no UID twice, and the order
// of the lists, and so that of maps, is irrelevant.
func TestOrderFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := absurd.Draw(t, "snapshot").Snapshot
		want := migration.InFlight(s)
		for i := 1; i < len(want); i++ {
			if want[i-1].UID >= want[i].UID {
				t.Fatalf("%s before %s", want[i-1].UID, want[i].UID)
			}
		}
		s.Migrations = rapid.Permutation(s.Migrations).Draw(t, "VMIMs")
		s.VMIs = rapid.Permutation(s.VMIs).Draw(t, "VMIs")
		s.Pods = rapid.Permutation(s.Pods).Draw(t, "pods")
		s.PVCs = rapid.Permutation(s.PVCs).Draw(t, "PVCs")
		s.LimitRanges = rapid.Permutation(s.LimitRanges).Draw(t, "LimitRanges")
		s.Events = rapid.Permutation(s.Events).Draw(t, "Events")
		s.ResourceClaims = rapid.Permutation(s.ResourceClaims).Draw(t, "ResourceClaims")
		if diff := cmp.Diff(want, migration.InFlight(s), same); diff != "" {
			t.Fatalf("another order gives another answer:\n%s", diff)
		}
	})
}

// TestPure: the input is not modified, and shares no memory with the result; nor do
// the lists of the result with each other.
func TestPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := absurd.Draw(t, "snapshot").Snapshot
		before := world{s}.GoString()
		got := migration.InFlight(s)
		if diff := cmp.Diff(before, world{s}.GoString()); diff != "" {
			t.Fatalf("the input changed:\n%s", diff)
		}
		lists, expected := listsOf(got), listsOf(migration.InFlight(s))
		for i, list := range lists {
			spoil(list)
			for j := i + 1; j < len(lists); j++ {
				if !quota.Equal(lists[j], expected[j]) {
					t.Fatalf("the lists of the result share memory: %s became %s", text(expected[j]), text(lists[j]))
				}
			}
		}
		if diff := cmp.Diff(before, world{s}.GoString()); diff != "" {
			t.Fatalf("the input shares memory with the result:\n%s", diff)
		}
	})
}

func listsOf(migrations []quota.Migration) []corev1.ResourceList {
	var lists []corev1.ResourceList
	for _, m := range migrations {
		lists = append(lists, m.Surge, m.Held)
		for _, share := range m.Shares {
			lists = append(lists, share.Surge, share.Held)
		}
	}
	return lists
}

// spoil changes every amount of list in place, also those in inf.Dec.
func spoil(list corev1.ResourceList) {
	for name, q := range list {
		q.AsDec().SetScale(7)
		list[name] = q
	}
	if list != nil {
		list["spoilt"] = resource.MustParse("1")
	}
}

// TestForeignObjects: what has nothing to do with virtual machines, or with those of
// the snapshot, is ignored.
func TestForeignObjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stored.Draw(t, "snapshot").Snapshot
		want := migration.InFlight(s)
		d := drawer{dice: seededDice(rapid.Uint64().Draw(t, "seed"))}
		pod, launcher := d.pod("foreign"), d.pod("launcher-of-another")
		delete(pod.Labels, kubevirtv1.AppLabel)
		pod.Labels[kubevirtv1.CreatedByLabel] = "uid-vm0"
		launcher.Labels[kubevirtv1.CreatedByLabel], launcher.OwnerReferences = "uid-elsewhere", nil
		vmim := d.vmim("of-another")
		vmim.Spec.VMIName = "elsewhere"
		pvc := d.pvc("data")
		pvc.Labels = nil
		ofPods := limitRange("of-pods", "", "")
		ofPods.Spec.Limits[0].Type, ofPods.Spec.Limits[0].Default = corev1.LimitTypePod, d.list()

		s.Pods = append(s.Pods, pod, launcher)
		s.Migrations = append(s.Migrations, vmim)
		s.PVCs = append(s.PVCs, pvc)
		s.LimitRanges = append(s.LimitRanges, ofPods)
		if diff := cmp.Diff(want, migration.InFlight(s), same); diff != "" {
			t.Fatalf("foreign objects count:\n%s", diff)
		}
	})
}
