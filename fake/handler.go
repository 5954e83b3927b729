package fake

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/virthandler"
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
		for _, pod := range n.store.podsOf(vmi) {
			n.end(pod, n.config.Timing.Node)
		}
	case vmi.IsScheduled():
		n.onVMI("boot", vmi, n.config.Timing.Node, func(vmi *kubevirtv1.VirtualMachineInstance) {
			if vmi.IsScheduled() && vmi.DeletionTimestamp == nil {
				virthandler.Boot(vmi, n.stamp())
			}
		})
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

// shutDown ends a guest: its launchers one after the other, then the VMI.
func (n *nodes) shutDown(vmi *kubevirtv1.VirtualMachineInstance) {
	for _, pod := range n.store.podsOf(vmi) {
		if pod.DeletionTimestamp != nil && !ended(pod) {
			write(n.Cluster, kubeletUser, pod, n.finish)
			n.clock.after(n.draw(n.config.Timing.Call), func() { n.shutDown(vmi) })
			return
		}
	}
	write(n.Cluster, virtHandlerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		if !vmi.IsFinal() {
			virthandler.Enter(vmi, kubevirtv1.Succeeded, n.stamp())
		}
	})
}

// move takes a migration that was handed over one step further.
func (n *nodes) move(vmi *kubevirtv1.VirtualMachineInstance) {
	uid := vmi.Status.MigrationState.MigrationUID
	m := n.migrationOf(vmi)
	if m == nil {
		return
	}
	outcome := n.virt.outcome(m)
	step, due := virthandler.Next(vmi, m, outcome.Fail, outcome.Hang)
	if !due {
		return
	}
	lag, copies := n.config.Timing.Node, step.Name == virthandler.Fail.Name || step.Name == virthandler.Finish.Name
	if copies {
		lag = n.config.Timing.Copy
	}
	n.onVMI(step.Name+" "+string(uid), vmi, lag, func(vmi *kubevirtv1.VirtualMachineInstance) {
		state := vmi.Status.MigrationState
		if state != nil && state.MigrationUID == uid && !state.Completed && vmi.DeletionTimestamp == nil && !(copies && state.AbortRequested) {
			step.Change(vmi, n.stamp())
		}
	})
}

// endLoser ends the pod that a migration has left behind.
func (n *nodes) endLoser(vmi *kubevirtv1.VirtualMachineInstance) {
	state, lag := vmi.Status.MigrationState, n.config.Timing.Node
	if !state.Failed {
		lag = n.config.Timing.Linger
		if linger := n.virt.outcomes[state.MigrationUID].Linger; linger > 0 {
			lag = Span{Min: linger, Max: linger}
		}
	}
	if pod, ok := find[*corev1.Pod](&n.store, vmi.Namespace, virthandler.Loser(state)); ok {
		n.end(pod, lag)
	}
}

func (n *nodes) end(pod *corev1.Pod, lag Span) {
	if !ended(pod) {
		n.once("end "+string(pod.UID), lag, func() { write(n.Cluster, kubeletUser, pod, n.finish) })
	}
}
