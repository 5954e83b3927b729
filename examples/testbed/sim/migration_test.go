package sim

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func TestVMIBoots(t *testing.T) {
	w := newWorld(t)
	w.newVMI("vm", "a")
	vmi := w.vmi("vm")
	require.Equal(t, "none", vmi.Status.SelinuxContext)
	require.Len(t, vmi.Status.Conditions, 1)
	require.Equal(t, kubevirtv1.VirtualMachineInstanceIsMigratable, vmi.Status.Conditions[0].Type)
}

func TestVMIShutsDownWhenDeleted(t *testing.T) {
	w := migrating(t, nil)
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.DeletionTimestamp = &metav1.Time{Time: w.now}
	})
	w.play(2 * time.Second)
	require.Equal(t, kubevirtv1.Succeeded, w.vmi("vm").Status.Phase)
	require.Equal(t, corev1.PodSucceeded, w.pod("vm-source").Status.Phase)
	require.Equal(t, corev1.PodSucceeded, w.pod("vm-target").Status.Phase)
}

// migrating returns a world with a VMI that migrates.
func migrating(t *testing.T, annotations map[string]string) *world {
	t.Helper()
	w := newWorld(t)
	w.newVMI("vm", "a")
	w.newVMIM("m", "vm", "b", annotations)
	return w
}

// TestMigration tells how migrations end, by the annotations of the migration.
func TestMigration(t *testing.T) {
	const succeeded, running = corev1.PodSucceeded, corev1.PodRunning
	for name, test := range map[string]struct {
		annotations       map[string]string
		abort             bool
		after             time.Duration
		completed, failed bool
		source, target    corev1.PodPhase
	}{
		"succeeds":                     {after: 3 * time.Second, completed: true, source: succeeded, target: running},
		"is under way before":          {after: time.Second / 2, source: running, target: running},
		"fails":                        {annotations: map[string]string{MigrationAnnotation: Fail}, after: 3 * time.Second, completed: true, failed: true, source: running, target: succeeded},
		"hangs":                        {annotations: map[string]string{MigrationAnnotation: Hang}, after: time.Minute, source: running, target: running},
		"is aborted":                   {abort: true, after: 3 * time.Second, completed: true, failed: true, source: running, target: succeeded},
		"is aborted while it hangs":    {annotations: map[string]string{MigrationAnnotation: Hang}, abort: true, after: 3 * time.Second, completed: true, failed: true, source: running, target: succeeded},
		"source lingers":               {annotations: map[string]string{LingerAnnotation: "10s"}, after: 10 * time.Second, completed: true, source: running, target: running},
		"source has lingered":          {annotations: map[string]string{LingerAnnotation: "10s"}, after: 12 * time.Second, completed: true, source: succeeded, target: running},
		"source hangs":                 {annotations: map[string]string{LingerAnnotation: Forever}, after: time.Minute, completed: true, source: running, target: running},
		"target hangs after it failed": {annotations: map[string]string{MigrationAnnotation: Fail, LingerAnnotation: Forever}, after: time.Minute, completed: true, failed: true, source: running, target: running},
	} {
		t.Run(name, func(t *testing.T) {
			w := migrating(t, test.annotations)
			if test.abort {
				w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Status.MigrationState.AbortRequested = true })
			}
			w.play(test.after)
			state := w.vmi("vm").Status.MigrationState
			require.Equal(t, test.completed, state.Completed)
			require.Equal(t, test.failed, state.Failed)
			require.Equal(t, test.completed, state.EndTimestamp != nil)
			require.Equal(t, test.source, w.pod("vm-source").Status.Phase)
			require.Equal(t, test.target, w.pod("vm-target").Status.Phase)
			require.Equal(t, test.completed && !test.failed, w.vmi("vm").Status.NodeName == "b")
			if test.abort {
				require.Equal(t, kubevirtv1.MigrationAbortSucceeded, state.AbortStatus)
			}
			require.Empty(t, w.log.String())
		})
	}
}

// TestWrongAnnotation sees to it that a typing error is told, and not taken for nothing.
func TestWrongAnnotation(t *testing.T) {
	for _, key := range []string{MigrationAnnotation, LingerAnnotation} {
		w := migrating(t, nil)
		w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Annotations[key] = "no" })
		w.play(10 * time.Second)
		require.False(t, w.vmi("vm").Status.MigrationState.Completed)
		require.Contains(t, w.log.String(), key)
		require.Contains(t, w.log.String(), `"no"`)
	}
}

func TestAnnotationOfMigrationGoesBeforeThatOfVMI(t *testing.T) {
	w := newWorld(t)
	w.newVMI("vm", "a")
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Annotations[MigrationAnnotation] = Hang })
	w.newVMIM("m", "vm", "b", map[string]string{MigrationAnnotation: ""})
	w.play(3 * time.Second)
	require.True(t, w.vmi("vm").Status.MigrationState.Completed)
}

func TestHangEndsWhenTheAnnotationGoes(t *testing.T) {
	w := newWorld(t)
	w.newVMI("vm", "a")
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Annotations[MigrationAnnotation] = Hang })
	w.newVMIM("m", "vm", "b", nil)
	w.play(time.Minute)
	require.False(t, w.vmi("vm").Status.MigrationState.Completed)
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { delete(vmi.Annotations, MigrationAnnotation) })
	w.play(2 * time.Second)
	require.True(t, w.vmi("vm").Status.MigrationState.Completed)
}

func TestSourceThatHangsEndsWhenDeleted(t *testing.T) {
	w := migrating(t, map[string]string{LingerAnnotation: Forever})
	w.play(time.Minute)
	require.Equal(t, corev1.PodRunning, w.pod("vm-source").Status.Phase)
	w.deletePod("vm-source")
	w.play(time.Second)
	require.Equal(t, corev1.PodSucceeded, w.pod("vm-source").Status.Phase)
}

// The VMI names the pods of its next migration then, and of none that has ended.
func TestLosingPodEndsAlthoughTheNextMigrationHasBegun(t *testing.T) {
	w := migrating(t, map[string]string{LingerAnnotation: "7s"})
	for begin := w.now; !w.vmi("vm").Status.MigrationState.Completed; w.pass() {
		w.now = w.now.Add(time.Second / 4)
		require.Less(t, w.now.Sub(begin), 5*time.Second)
	}
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
			MigrationUID: "next", SourceNode: "b", SourcePod: "vm-target", TargetPod: "vm-next",
		}
	})
	w.play(5 * time.Second)
	require.Equal(t, corev1.PodRunning, w.pod("vm-source").Status.Phase)
	w.play(3 * time.Second)
	require.Equal(t, corev1.PodSucceeded, w.pod("vm-source").Status.Phase)
	require.Equal(t, corev1.PodRunning, w.pod("vm-target").Status.Phase)
	require.Empty(t, w.sim.ending)
}

func TestMigrationToDeadNodeStandsStill(t *testing.T) {
	w := migrating(t, nil)
	require.NoError(t, w.sim.KillNode(t.Context(), "b"))
	w.play(time.Minute)
	require.False(t, w.vmi("vm").Status.MigrationState.Completed)
}

func TestHandOverBringsWhatWasHotPlugged(t *testing.T) {
	w := newWorld(t)
	w.newVMI("vm", "a")
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) {
		guest := resource.MustParse("2Gi")
		vmi.Spec.Domain.Memory.Guest = &guest
		vmi.Spec.Domain.CPU.Sockets = 4
		for _, condition := range []kubevirtv1.VirtualMachineInstanceConditionType{kubevirtv1.VirtualMachineInstanceVCPUChange, kubevirtv1.VirtualMachineInstanceMemoryChange} {
			vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: condition, Status: corev1.ConditionTrue})
		}
	})
	w.newVMIM("m", "vm", "b", nil)
	overhead := resource.MustParse("300Mi")
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.Status.MigrationState.TargetMemoryOverhead = &overhead
		vmi.Status.EvacuationNodeName = "a"
	})
	w.play(2 * time.Second)

	status := w.vmi("vm").Status
	require.Equal(t, kubevirtv1.CPUTopology{Sockets: 4, Cores: 1, Threads: 1}, *status.CurrentCPUTopology)
	require.Equal(t, "2Gi", status.Memory.GuestCurrent.String())
	require.Equal(t, "1Gi", status.Memory.GuestAtBoot.String())
	require.Equal(t, "300Mi", status.Memory.MemoryOverhead.String())
	require.Empty(t, status.EvacuationNodeName)
	require.Len(t, status.Conditions, 1, "the conditions that asked for it are gone")
}

// TestNeverTouchesWhatControllersOwn lets everything happen, and looks at every write.
func TestNeverTouchesWhatControllersOwn(t *testing.T) {
	w := newWorld(t)
	allowed := []string{
		"create pods/binding", "update pods/status", "delete pods", // scheduler and kubelet
		"create nodes", "update nodes", "update nodes/status", // kubelet and node lifecycle controller
		"update virtualmachineinstances", // virt-handler
	}
	seen := map[string]bool{}
	look := func(long time.Duration) {
		for end := w.now.Add(long); w.now.Before(end); w.now = w.now.Add(time.Second / 4) {
			specs := w.specs()
			w.pass()
			for _, write := range w.writes() {
				require.Contains(t, allowed, write)
				seen[write] = true
			}
			require.Empty(t, cmp.Diff(specs, w.specs()), "no VMI's spec changes")
		}
	}
	require.NoError(t, w.client.CoreV1().Nodes().Delete(t.Context(), "c", metav1.DeleteOptions{}))
	w.newPod("p")
	look(time.Minute)
	w.newVMI("vm", "a")
	w.newVMIM("m", "vm", "b", nil)
	look(time.Minute)
	w.deletePod("vm-source")
	look(time.Minute)
	w.changeVMI("vm", func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.DeletionTimestamp = &metav1.Time{Time: w.now} })
	look(time.Minute)
	require.ElementsMatch(t, allowed, slices.Collect(maps.Keys(seen)), "everything happened")
}

func (w *world) specs() map[string]kubevirtv1.VirtualMachineInstanceSpec {
	specs := map[string]kubevirtv1.VirtualMachineInstanceSpec{}
	for _, vmi := range list[kubevirtv1.VirtualMachineInstance](w.sim.caches.vmis) {
		specs[vmi.Name] = w.vmi(vmi.Name).Spec
	}
	return specs
}
