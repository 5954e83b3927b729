package sim

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// migrate takes the migration of vmi a step further, as virt-handler does on the source
// and on the target node.
func (s *Simulator) migrate(ctx context.Context, now *view, vmi *kubevirtv1.VirtualMachineInstance) error {
	state := vmi.Status.MigrationState
	vmim := now.vmims[state.MigrationUID]
	how, err := behaviourOf(vmi, vmim)
	if err != nil {
		return err
	}
	if state.Completed || state.Failed {
		return s.endLoser(ctx, now, vmi, how)
	}
	if state.MigrationUID == "" || state.TargetNode == "" || !now.alive(state.TargetNode) {
		return nil
	}
	if state.AbortRequested {
		if s.over("abort", vmi) {
			s.fail(vmi, "Live migration has been aborted")
			state.AbortStatus = kubevirtv1.MigrationAbortSucceeded
		}
		return nil
	}
	if vmim == nil {
		return nil
	}
	switch phase := vmim.Status.Phase; {
	case state.TargetNodeAddress == "":
		if s.over("prepare", vmi) {
			state.TargetNodeAddress = "10.0.0.1"
			state.TargetDirectMigrationNodePorts = map[string]int{"40001": 0}
		}
	case phase == kubevirtv1.MigrationTargetReady && state.StartTimestamp == nil:
		if s.over("start", vmi) {
			state.StartTimestamp = s.stamp()
			state.Mode = kubevirtv1.MigrationPreCopy
		}
	case phase == kubevirtv1.MigrationRunning && how.fails:
		if s.over("fail", vmi) {
			s.fail(vmi, "the simulator was told to let it fail")
		}
	case phase == kubevirtv1.MigrationRunning && !how.hangs:
		if s.over("hand over", vmi) {
			s.handOver(vmi)
		}
	}
	return nil
}

// over tells whether a step of the migration that vmi is in is over.
func (s *Simulator) over(what string, vmi *kubevirtv1.VirtualMachineInstance) bool {
	return s.pace.over(s.step, step{what: what, of: vmi.Status.MigrationState.MigrationUID})
}

func (s *Simulator) fail(vmi *kubevirtv1.VirtualMachineInstance, reason string) {
	state := vmi.Status.MigrationState
	state.Failed, state.Completed = true, true
	state.EndTimestamp = s.stamp()
	state.FailureReason = reason
}

// handOver lets the machine run on the target node, with the processors and the memory
// that it was to get by migrating
// (kubevirt.io/kubevirt pkg/virt-handler/migration-target.go, ackMigrationCompletion,
// hotplugCPU and hotplugMemory).
func (s *Simulator) handOver(vmi *kubevirtv1.VirtualMachineInstance) {
	state, status := vmi.Status.MigrationState, &vmi.Status
	state.TargetNodeDomainDetected = true
	state.TargetNodeDomainReadyTimestamp = s.stamp()
	state.EndTimestamp = s.stamp()
	state.Completed = true
	status.NodeName = state.TargetNode
	metav1.SetMetaDataLabel(&vmi.ObjectMeta, kubevirtv1.NodeNameLabel, state.TargetNode)
	status.EvacuationNodeName = ""
	status.MigrationTransport = kubevirtv1.MigrationTransportUnix
	if state.TargetMemoryOverhead != nil {
		if status.Memory == nil {
			status.Memory = &kubevirtv1.MemoryStatus{}
		}
		overhead := state.TargetMemoryOverhead.DeepCopy()
		status.Memory.MemoryOverhead = &overhead
	}
	if removeCondition(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange) && vmi.Spec.Domain.CPU != nil {
		cpu := vmi.Spec.Domain.CPU
		status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Sockets: cpu.Sockets, Cores: cpu.Cores, Threads: cpu.Threads}
	}
	if removeCondition(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange) && vmi.Spec.Domain.Memory != nil && vmi.Spec.Domain.Memory.Guest != nil {
		if status.Memory == nil {
			status.Memory = &kubevirtv1.MemoryStatus{}
		}
		requested, current := vmi.Spec.Domain.Memory.Guest.DeepCopy(), vmi.Spec.Domain.Memory.Guest.DeepCopy()
		status.Memory.GuestRequested, status.Memory.GuestCurrent = &requested, &current
	}
	for _, label := range []string{kubevirtv1.VirtualMachinePodCPULimitsLabel, kubevirtv1.VirtualMachinePodMemoryRequestsLabel, kubevirtv1.MemoryHotplugOverheadRatioLabel} {
		delete(vmi.Labels, label)
	}
}

// endLoser ends the pod that a migration leaves over: the source, or if it failed the
// target. It goes by the names in the VMI, for the losing pod may be on any node.
func (s *Simulator) endLoser(ctx context.Context, now *view, vmi *kubevirtv1.VirtualMachineInstance, how behaviour) error {
	state := vmi.Status.MigrationState
	loser := state.SourcePod
	if state.Failed {
		loser = state.TargetPod
	}
	if loser == "" || how.lingerForever {
		return nil
	}
	takes := max(s.step, how.linger)
	for _, pod := range now.launchers[vmi.UID] {
		if pod.Name != loser || pod.DeletionTimestamp != nil || terminal(pod) || !now.alive(pod.Spec.NodeName) {
			continue
		}
		if s.pace.over(takes, step{what: "end", of: state.MigrationUID, and: pod.UID}) {
			return s.finish(ctx, pod)
		}
	}
	return nil
}

func (s *Simulator) stamp() *metav1.Time {
	now := metav1.NewTime(s.pace.now().Truncate(time.Second)) // all that JSON keeps
	return &now
}

// removeCondition removes a condition, and tells whether there was one.
func removeCondition(vmi *kubevirtv1.VirtualMachineInstance, kind kubevirtv1.VirtualMachineInstanceConditionType) bool {
	before := len(vmi.Status.Conditions)
	vmi.Status.Conditions = slices.DeleteFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool {
		return c.Type == kind
	})
	return len(vmi.Status.Conditions) < before
}
