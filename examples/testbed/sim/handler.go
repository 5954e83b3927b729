package sim

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/fake/virthandler"
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
		if s.pace.over(s.step, step{what: "boot", of: vmi.UID}) {
			virthandler.Boot(vmi, s.stamp())
		}
	case vmi.Status.Phase == kubevirtv1.Running && vmi.Status.MigrationState != nil:
		err = s.migrate(ctx, now, vmi)
	}
	if err != nil || equality.Semantic.DeepEqual(before, vmi) {
		return err
	}
	_, err = virt.VMIs(s.virt, vmi.Namespace).Update(ctx, vmi)
	return err
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
	virthandler.Enter(vmi, kubevirtv1.Succeeded, s.stamp())
	return nil
}
