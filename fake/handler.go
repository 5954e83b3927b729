package fake

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

const virtHandlerUser = "virt-handler"

// retrySchedule is after which time the scheduler looks at a pod again that found no node.
const retrySchedule = 5 * time.Second

// observeVMI plans what the virt-handlers do next for vmi: run it, move it, end it.
func (n *nodes) observeVMI(vmi *kubevirtv1.VirtualMachineInstance) {
	state := vmi.Status.MigrationState
	switch {
	case vmi.DeletionTimestamp != nil && (vmi.IsRunning() || vmi.IsScheduled()):
		n.once("shut down "+string(vmi.UID), n.config.Timing.Node, func() { n.shutDown(vmi) })
	case vmi.IsFinal():
		n.endAll(vmi)
	case vmi.IsScheduled():
		n.onVMI("boot", vmi, n.config.Timing.Node, n.boot)
	case !vmi.IsRunning() || state == nil:
	case state.Completed:
		n.endLoser(vmi)
	default:
		n.move(vmi)
	}
}

// onVMI changes vmi after lag.
func (n *nodes) onVMI(step string, vmi *kubevirtv1.VirtualMachineInstance, lag Span, change func(*kubevirtv1.VirtualMachineInstance)) {
	n.once(step+" "+string(vmi.UID), lag, func() { write(n.Cluster, virtHandlerUser, vmi, change) })
}

func (n *nodes) boot(vmi *kubevirtv1.VirtualMachineInstance) {
	if !vmi.IsScheduled() || vmi.DeletionTimestamp != nil {
		return
	}
	n.enterPhase(vmi, kubevirtv1.Running)
	vmi.Status.SelinuxContext = "none"
	setVMICondition(vmi, kubevirtv1.VirtualMachineInstanceCondition{
		Type: kubevirtv1.VirtualMachineInstanceIsMigratable, Status: corev1.ConditionTrue, LastTransitionTime: n.stamp(),
	})
}

// shutDown ends a guest: its launchers one after the other, then the VMI.
func (n *nodes) shutDown(vmi *kubevirtv1.VirtualMachineInstance) {
	for _, pod := range n.virt.launchers(vmi) {
		if pod.DeletionTimestamp != nil && !ended(pod) {
			write(n.Cluster, kubeletUser, pod, n.finish)
			n.clock.after(n.draw(n.config.Timing.Call), func() { n.shutDown(vmi) })
			return
		}
	}
	write(n.Cluster, virtHandlerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		if !vmi.IsFinal() {
			n.enterPhase(vmi, kubevirtv1.Succeeded)
		}
	})
}

// move takes a migration that was handed over one step further.
func (n *nodes) move(vmi *kubevirtv1.VirtualMachineInstance) {
	state := vmi.Status.MigrationState
	m := n.migrationOf(vmi)
	if m == nil {
		return
	}
	uid := state.MigrationUID
	step := func(name string, lag Span, change func(vmi *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState)) {
		n.onVMI(name+" "+string(uid), vmi, lag, func(vmi *kubevirtv1.VirtualMachineInstance) {
			if s := vmi.Status.MigrationState; s != nil && s.MigrationUID == uid && !s.Completed && vmi.DeletionTimestamp == nil {
				change(vmi, s)
			}
		})
	}
	outcome := n.virt.outcome(m)
	switch {
	case state.AbortRequested:
		step("abort", n.config.Timing.Node, n.abort)
	case state.TargetNodeAddress == "":
		step("prepare", n.config.Timing.Node, func(_ *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState) {
			state.TargetNodeAddress = "10.0.0.1"
			state.TargetDirectMigrationNodePorts = map[string]int{"40001": 0}
		})
	case m.Status.Phase == kubevirtv1.MigrationTargetReady && state.StartTimestamp == nil:
		step("start", n.config.Timing.Node, func(_ *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState) {
			state.StartTimestamp = pointer(n.stamp())
			state.Mode = kubevirtv1.MigrationPreCopy
		})
	case m.Status.Phase == kubevirtv1.MigrationRunning && outcome.Fail:
		step("fail", n.config.Timing.Copy, n.failMove)
	case m.Status.Phase == kubevirtv1.MigrationRunning && !outcome.Hang:
		step("finish", n.config.Timing.Copy, n.finishMove)
	}
}

func (n *nodes) migrationOf(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstanceMigration {
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&n.store, vmi.Namespace) {
		if m.UID == vmi.Status.MigrationState.MigrationUID {
			return m
		}
	}
	return nil
}

func (n *nodes) abort(_ *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState) {
	state.AbortStatus = kubevirtv1.MigrationAbortSucceeded
	state.Failed, state.Completed = true, true
	state.FailureReason = "Live migration has been aborted"
	state.EndTimestamp = pointer(n.stamp())
}

func (n *nodes) failMove(_ *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState) {
	if state.AbortRequested {
		return
	}
	state.Failed, state.Completed = true, true
	state.FailureReason = "the test wanted it to fail"
	state.EndTimestamp = pointer(n.stamp())
}

// finishMove makes the target the place of the guest, and what was hot-plugged true.
func (n *nodes) finishMove(vmi *kubevirtv1.VirtualMachineInstance, state *kubevirtv1.VirtualMachineInstanceMigrationState) {
	if state.AbortRequested {
		return
	}
	state.Completed, state.TargetNodeDomainDetected = true, true
	state.EndTimestamp, state.TargetNodeDomainReadyTimestamp = pointer(n.stamp()), pointer(n.stamp())
	vmi.Status.NodeName = state.TargetNode
	metav1.SetMetaDataLabel(&vmi.ObjectMeta, kubevirtv1.NodeNameLabel, state.TargetNode)
	vmi.Status.EvacuationNodeName = ""
	dropVMICondition(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange)
	dropVMICondition(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange)
	if vmi.Status.CurrentCPUTopology != nil {
		vmi.Status.CurrentCPUTopology.Sockets = vmi.Spec.Domain.CPU.Sockets
	}
}

// endLoser ends the pod that a migration has left behind: the source after success, the
// target after failure.
func (n *nodes) endLoser(vmi *kubevirtv1.VirtualMachineInstance) {
	state := vmi.Status.MigrationState
	loser, lag := state.TargetPod, n.config.Timing.Node
	if !state.Failed {
		loser, lag = state.SourcePod, n.config.Timing.Linger
		if linger := n.virt.outcomes[state.MigrationUID].Linger; linger > 0 {
			lag = Span{Min: linger, Max: linger}
		}
	}
	if pod, ok := find[*corev1.Pod](&n.store, vmi.Namespace, loser); ok {
		n.end(pod, lag)
	}
}

// endAll ends the launchers of a VMI that has ended.
func (n *nodes) endAll(vmi *kubevirtv1.VirtualMachineInstance) {
	for _, pod := range n.virt.launchers(vmi) {
		n.end(pod, n.config.Timing.Node)
	}
}

func (n *nodes) end(pod *corev1.Pod, lag Span) {
	if !ended(pod) {
		n.once("end "+string(pod.UID), lag, func() { write(n.Cluster, kubeletUser, pod, n.finish) })
	}
}
