package sim

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/virthandler"
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
	if step, due := virthandler.Next(vmi, vmim, how.fails, how.hangs); due && s.over(step.Name, vmi) {
		step.Change(vmi, s.stamp())
	}
	return nil
}

// over tells whether a step of the migration that vmi is in is over.
func (s *Simulator) over(what string, vmi *kubevirtv1.VirtualMachineInstance) bool {
	return s.pace.over(s.step, step{what: what, of: vmi.Status.MigrationState.MigrationUID})
}

// endLoser ends the pod that a migration leaves over: the source, or if it failed the
// target. It goes by the names in the VMI, for the losing pod may be on any node.
func (s *Simulator) endLoser(ctx context.Context, now *view, vmi *kubevirtv1.VirtualMachineInstance, how behaviour) error {
	state := vmi.Status.MigrationState
	loser := virthandler.Loser(vmi)
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

// stamp is the time in whole seconds, all that JSON keeps.
func (s *Simulator) stamp() metav1.Time { return metav1.NewTime(s.pace.now().Truncate(time.Second)) }
