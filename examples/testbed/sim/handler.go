package sim

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
)

// playVMI plays virt-handler for one VMI, on the node that it runs on and on the node
// that it migrates to, and its virt-launchers, as far as they end by themselves.
func (s *Simulator) playVMI(ctx context.Context, now *view, vmi *kubevirtv1.VirtualMachineInstance) error {
	if !now.alive(vmi.Status.NodeName) {
		return nil
	}
	before := vmi.DeepCopy()
	var err error
	switch {
	case vmi.DeletionTimestamp != nil:
		err = s.shutDown(ctx, now, vmi)
	case vmi.Status.Phase == kubevirtv1.Scheduled:
		s.boot(vmi)
	case vmi.Status.Phase == kubevirtv1.Running && vmi.Status.MigrationState != nil:
		err = s.migrate(ctx, now, vmi)
	}
	if err != nil || equality.Semantic.DeepEqual(before, vmi) {
		return err
	}
	_, err = virt.VMIs(s.virt, vmi.Namespace).Update(ctx, vmi)
	return err
}

// boot says that the machine runs.
func (s *Simulator) boot(vmi *kubevirtv1.VirtualMachineInstance) {
	if !s.pace.over(s.step, step{what: "boot", of: vmi.UID}) {
		return
	}
	s.enter(vmi, kubevirtv1.Running)
	vmi.Status.SelinuxContext = "none"
	migratable := kubevirtv1.VirtualMachineInstanceIsMigratable
	if !slices.ContainsFunc(vmi.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceCondition) bool { return c.Type == migratable }) {
		vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{
			Type: migratable, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.pace.now()),
		})
	}
}

// shutDown ends the machine that somebody deleted, and its virt-launchers.
func (s *Simulator) shutDown(ctx context.Context, now *view, vmi *kubevirtv1.VirtualMachineInstance) error {
	if vmi.Status.Phase != kubevirtv1.Running && vmi.Status.Phase != kubevirtv1.Scheduled {
		return nil
	}
	if !s.pace.over(s.step, step{what: "shut down", of: vmi.UID}) {
		return nil
	}
	for _, pod := range now.launchers[vmi.UID] {
		if !now.alive(pod.Spec.NodeName) {
			continue
		}
		if err := s.finish(ctx, pod); err != nil {
			return err
		}
	}
	s.enter(vmi, kubevirtv1.Succeeded)
	return nil
}

func (s *Simulator) enter(vmi *kubevirtv1.VirtualMachineInstance, phase kubevirtv1.VirtualMachineInstancePhase) {
	vmi.Status.Phase = phase
	vmi.Status.PhaseTransitionTimestamps = append(vmi.Status.PhaseTransitionTimestamps,
		kubevirtv1.VirtualMachineInstancePhaseTransitionTimestamp{Phase: phase, PhaseTransitionTimestamp: metav1.NewTime(s.pace.now())})
}
