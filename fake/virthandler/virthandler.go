// Package virthandler has the steps of KubeVirt's virt-handler (v1.9), as changes of a VirtualMachineInstance:
// it boots, migrates and ends. They do no I/O and read no clock. Package fake takes them on its simulated
// nodes, and the test bed of examples/testbed on those of a real API server.
package virthandler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A Step is the next one of a migration. Change makes it, on a VMI that is still in the same migration.
type Step struct {
	Name   string
	Change func(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time)
}

// The steps of a migration.
var (
	Abort   = Step{"abort", abort}
	Prepare = Step{"prepare", prepare}
	Start   = Step{"start", start}
	Fail    = Step{"fail", func(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time) {
		fail(vmi, now, "the simulation was told to let it fail")
	}}
	Finish = Step{"finish", finish}
)

// Next returns the next step of the migration m that vmi is in, false if virt-handler waits. One that is to
// hang never fails or finishes.
func Next(vmi *kubevirtv1.VirtualMachineInstance, m *kubevirtv1.VirtualMachineInstanceMigration, fails, hangs bool) (Step, bool) {
	state := vmi.Status.MigrationState
	switch {
	case state == nil || state.Completed:
		return Step{}, false
	case state.AbortRequested:
		return Abort, true
	case m == nil:
		return Step{}, false
	case state.TargetNodeAddress == "":
		return Prepare, true
	case m.Status.Phase == kubevirtv1.MigrationTargetReady && state.StartTimestamp == nil:
		return Start, true
	case m.Status.Phase == kubevirtv1.MigrationRunning && fails:
		return Fail, true
	case m.Status.Phase == kubevirtv1.MigrationRunning && !hangs:
		return Finish, true
	default:
		return Step{}, false
	}
}

// Loser returns the name of the pod that a completed migration leaves behind: the source after success, the
// target after failure.
func Loser(state *kubevirtv1.VirtualMachineInstanceMigrationState) string {
	if state.Failed {
		return state.TargetPod
	}
	return state.SourcePod
}

// Enter makes phase the one of vmi.
func Enter(vmi *kubevirtv1.VirtualMachineInstance, phase kubevirtv1.VirtualMachineInstancePhase, now metav1.Time) {
	if vmi.Status.Phase == phase {
		return
	}
	vmi.Status.Phase = phase
	vmi.Status.PhaseTransitionTimestamps = append(vmi.Status.PhaseTransitionTimestamps,
		kubevirtv1.VirtualMachineInstancePhaseTransitionTimestamp{Phase: phase, PhaseTransitionTimestamp: now})
}

// Boot says that the guest runs and may migrate.
func Boot(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time) {
	Enter(vmi, kubevirtv1.Running, now)
	vmi.Status.SelinuxContext = "none"
	RemoveCondition(vmi, kubevirtv1.VirtualMachineInstanceIsMigratable)
	vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{
		Type: kubevirtv1.VirtualMachineInstanceIsMigratable, Status: corev1.ConditionTrue, LastTransitionTime: now,
	})
}

func prepare(vmi *kubevirtv1.VirtualMachineInstance, _ metav1.Time) {
	vmi.Status.MigrationState.TargetNodeAddress = "10.0.0.1"
	vmi.Status.MigrationState.TargetDirectMigrationNodePorts = map[string]int{"40001": 0}
}

func start(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time) {
	vmi.Status.MigrationState.StartTimestamp = &now
	vmi.Status.MigrationState.Mode = kubevirtv1.MigrationPreCopy
}

func abort(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time) {
	fail(vmi, now, "Live migration has been aborted")
	vmi.Status.MigrationState.AbortStatus = kubevirtv1.MigrationAbortSucceeded
}

func fail(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time, reason string) {
	state := vmi.Status.MigrationState
	state.Failed, state.Completed, state.EndTimestamp, state.FailureReason = true, true, &now, reason
}

// finish lets the guest run on the target node, with the processors and the memory that it was to get by
// migrating (pkg/virt-handler/migration-target.go: ackMigrationCompletion, hotplugCPU and hotplugMemory).
func finish(vmi *kubevirtv1.VirtualMachineInstance, now metav1.Time) {
	state, status := vmi.Status.MigrationState, &vmi.Status
	state.Completed, state.TargetNodeDomainDetected = true, true
	state.EndTimestamp, state.TargetNodeDomainReadyTimestamp = &now, now.DeepCopy()
	status.NodeName = state.TargetNode
	metav1.SetMetaDataLabel(&vmi.ObjectMeta, kubevirtv1.NodeNameLabel, state.TargetNode)
	status.EvacuationNodeName = ""
	status.MigrationTransport = kubevirtv1.MigrationTransportUnix
	if status.Memory == nil {
		status.Memory = &kubevirtv1.MemoryStatus{}
	}
	if state.TargetMemoryOverhead != nil {
		overhead := state.TargetMemoryOverhead.DeepCopy()
		status.Memory.MemoryOverhead = &overhead
	}
	domain := vmi.Spec.Domain
	if RemoveCondition(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange) && domain.CPU != nil {
		status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Sockets: domain.CPU.Sockets, Cores: domain.CPU.Cores, Threads: domain.CPU.Threads}
	}
	if RemoveCondition(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange) && domain.Memory != nil && domain.Memory.Guest != nil {
		requested, current := domain.Memory.Guest.DeepCopy(), domain.Memory.Guest.DeepCopy()
		status.Memory.GuestRequested, status.Memory.GuestCurrent = &requested, &current
	}
	for _, label := range []string{kubevirtv1.VirtualMachinePodCPULimitsLabel, kubevirtv1.VirtualMachinePodMemoryRequestsLabel, kubevirtv1.MemoryHotplugOverheadRatioLabel} {
		delete(vmi.Labels, label)
	}
}

// RemoveCondition removes the condition of that kind from vmi, and reports whether there was one.
func RemoveCondition(vmi *kubevirtv1.VirtualMachineInstance, kind kubevirtv1.VirtualMachineInstanceConditionType) bool {
	before := len(vmi.Status.Conditions)
	vmi.Status.Conditions = slices.DeleteFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool { return c.Type == kind })
	return len(vmi.Status.Conditions) < before
}
