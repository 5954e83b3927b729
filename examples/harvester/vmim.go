package main

import (
	"maps"

	"github.com/rancher/wrangler/v3/pkg/generic"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// What Harvester shows of a migration on its virtual machine.
const (
	uidAnnotation   = "harvesterhci.io/migrationUID"
	stateAnnotation = "harvesterhci.io/migrationState"
)

// A vmimHandler shows on each virtual machine how its migration goes. It is what remains
// of a handler of migrations when it has no quotas to care for.
type vmimHandler struct {
	cache generic.CacheInterface[*kubevirtv1.VirtualMachineInstance]
	vmis  interface {
		Update(vmi *kubevirtv1.VirtualMachineInstance) (*kubevirtv1.VirtualMachineInstance, error)
	}
}

// onMigration writes the state of vmim to its virtual machine, if that is there.
func (h *vmimHandler) onMigration(_ string, vmim *kubevirtv1.VirtualMachineInstanceMigration) (*kubevirtv1.VirtualMachineInstanceMigration, error) {
	if vmim == nil {
		return nil, nil
	}
	vmi, err := h.cache.Get(vmim.Namespace, vmim.Spec.VMIName)
	if apierrors.IsNotFound(err) {
		return vmim, nil
	} else if err != nil {
		return vmim, err
	}
	return vmim, h.show(vmi, string(vmim.UID), stateOf(vmim))
}

// show writes state to vmi; the empty state is none, and removes only what is shown of
// the same migration.
func (h *vmimHandler) show(vmi *kubevirtv1.VirtualMachineInstance, uid, state string) error {
	shown := vmi.DeepCopy()
	switch {
	case state != "":
		if shown.Annotations == nil {
			shown.Annotations = map[string]string{}
		}
		shown.Annotations[uidAnnotation], shown.Annotations[stateAnnotation] = uid, state
	case shown.Annotations[uidAnnotation] == uid:
		delete(shown.Annotations, uidAnnotation)
		delete(shown.Annotations, stateAnnotation)
	}
	if maps.Equal(shown.Annotations, vmi.Annotations) {
		return nil
	}
	_, err := h.vmis.Update(shown)
	return err
}

// stateOf is how Harvester calls the state of a migration; empty if it is over.
func stateOf(vmim *kubevirtv1.VirtualMachineInstanceMigration) string {
	switch {
	case vmim.IsFinal():
		return ""
	case vmim.DeletionTimestamp != nil:
		return "Aborting migration"
	case vmim.Status.Phase == kubevirtv1.MigrationPhaseUnset, vmim.Status.Phase == kubevirtv1.MigrationPending:
		return "Pending migration"
	default:
		return "Migrating"
	}
}
