package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		err = s.migrate(now, vmi)
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

// migrate takes the migration of vmi a step further, as virt-handler does on the source
// and on the target node.
func (s *Simulator) migrate(now *view, vmi *kubevirtv1.VirtualMachineInstance) error {
	state := vmi.Status.MigrationState
	vmim := now.vmims[state.MigrationUID]
	goes, linger, err := behaviourOf(vmi, vmim)
	if err != nil {
		return err
	}
	if state.Completed || state.Failed {
		s.endLoser(now, vmi, linger)
		return nil
	}
	if state.MigrationUID == "" || state.TargetNode == "" || !now.alive(state.TargetNode) {
		return nil
	}
	if step, due := virthandler.Next(vmi, vmim, goes == Fail, goes == Hang); due && s.over(step.Name, vmi) {
		step.Change(vmi, s.stamp())
		if state.Completed { // it may not be seen again: the next migration may begin at once
			s.endLoser(now, vmi, linger)
		}
	}
	return nil
}

// over tells whether a step of the migration that vmi is in is over.
func (s *Simulator) over(what string, vmi *kubevirtv1.VirtualMachineInstance) bool {
	return s.pace.over(s.step, step{what: what, of: vmi.Status.MigrationState.MigrationUID})
}

// endLoser begins to end the pod that a migration leaves over: the source, or if it failed the
// target. It goes by the names in the VMI, for the losing pod may be on any node.
func (s *Simulator) endLoser(now *view, vmi *kubevirtv1.VirtualMachineInstance, linger time.Duration) {
	loser := virthandler.Loser(vmi.Status.MigrationState)
	for _, pod := range now.launchers[vmi.UID] {
		switch {
		case loser == "" || pod.Name != loser:
		case linger < 0:
			delete(s.ending, pod.UID)
		default:
			s.ending[pod.UID] = max(s.step, linger)
		}
	}
}

// endLosers ends the pods that migrations have left over. The next migration of a machine may
// have begun, so that its VMI does not name them any more.
func (s *Simulator) endLosers(ctx context.Context, now *view) error {
	var errs []error
	for _, pod := range now.pods {
		takes, ends := s.ending[pod.UID]
		switch {
		case !ends || !now.alive(pod.Spec.NodeName):
		case pod.DeletionTimestamp != nil || terminal(pod):
			delete(s.ending, pod.UID)
		case s.pace.over(takes, step{what: "end", of: pod.UID}):
			errs = append(errs, s.finish(ctx, pod))
		}
	}
	return errors.Join(errs...)
}

// stamp is the time in whole seconds, all that JSON keeps.
func (s *Simulator) stamp() metav1.Time { return metav1.NewTime(s.pace.now().Truncate(time.Second)) }

// The annotations that make things go wrong.
const (
	MigrationAnnotation = "testbed.headroom.vmquota.io/migration"
	LingerAnnotation    = "testbed.headroom.vmquota.io/linger"
	DeadAnnotation      = "testbed.headroom.vmquota.io/dead"
)

// The values of MigrationAnnotation, and one of LingerAnnotation.
const (
	Hang    = "hang"
	Fail    = "fail"
	Forever = "forever"
)

// behaviourOf reads annotations: how a migration goes, and how long its losing pod lingers,
// negative for ever. The migration's go before those of its machine; it may be nil.
func behaviourOf(vmi *kubevirtv1.VirtualMachineInstance, vmim *kubevirtv1.VirtualMachineInstanceMigration) (goes string, linger time.Duration, err error) {
	goes = annotation(MigrationAnnotation, vmi, vmim)
	if goes != "" && goes != Hang && goes != Fail {
		return "", 0, fmt.Errorf("annotation %s: %q is neither %s nor %s", MigrationAnnotation, goes, Hang, Fail)
	}
	switch text := annotation(LingerAnnotation, vmi, vmim); text {
	case "":
	case Forever:
		linger = -1
	default:
		if linger, err = time.ParseDuration(text); err != nil {
			return "", 0, fmt.Errorf("annotation %s: %w", LingerAnnotation, err)
		}
	}
	return goes, linger, nil
}

func annotation(key string, vmi *kubevirtv1.VirtualMachineInstance, vmim *kubevirtv1.VirtualMachineInstanceMigration) string {
	if vmim != nil && metav1.HasAnnotation(vmim.ObjectMeta, key) {
		return vmim.Annotations[key]
	}
	return vmi.Annotations[key]
}
