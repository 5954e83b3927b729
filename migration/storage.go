package migration

import (
	"cmp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// persistentState is how KubeVirt names the volumes and labels the claims of its
// backend storage, which persists a TPM or EFI variables: PVCPrefix in its
// pkg/storage/backend-storage.
const persistentState = "persistent-state-for"

// storage returns what the migration claims for a second backend-storage PVC. KubeVirt
// makes it before the target pod, unless the first one can be shared, and deletes the
// one that lost.
func (m *machine) storage(vmim *kubevirtv1.VirtualMachineInstanceMigration, lost, over bool) claim {
	source, target := m.claimsOf(vmim)
	second := target
	if lost {
		second = source
	}
	switch {
	case second != nil && source == target, lost && target == nil:
		return nil // there is one only
	case lost && m.made(source) == nil:
		return nil
	case second != nil:
		return claim{{traits: quota.TraitsOfClaim(second), surge: quota.ClaimFootprint(calculableClaim(second)), held: true}}
	}
	if over || source == nil || !persists(m.vmi) {
		return nil
	}
	if modes := source.Status.AccessModes; len(modes) > 0 && modes[0] == corev1.ReadWriteMany {
		return nil // source and target share it
	}
	return claim{{traits: quota.TraitsOfClaim(source), surge: quota.ClaimFootprint(calculableClaim(source))}}
}

// leftStorage returns what the backend-storage PVC charges that vmim, which is over, has left behind.
// KubeVirt has deleted it, and Kubernetes keeps it as long as the losing pod is there, also if that
// has ended: podUsesPVCForDeletion in its pkg/controller/volume/pvcprotection.
func (m *machine) leftStorage(vmim *kubevirtv1.VirtualMachineInstanceMigration) claim {
	a := m.account(vmim.UID)
	name := a.targetClaim
	if a.won {
		name = a.sourceClaim
	}
	if name == "" || a.sourceClaim == a.targetClaim || name == backendClaimName(m.vmi) {
		return nil
	}
	left := m.made(m.backend[[2]string{"", name}]...)
	if left == nil || left.DeletionTimestamp == nil || left.CreationTimestamp.After(a.end.Truncate(time.Second)) {
		return nil // it is of no migration: whoever may create claims can take a name that is free
	}
	return claim{{traits: quota.TraitsOfClaim(left), surge: quota.ClaimFootprint(calculableClaim(left)), held: true}}
}

// backendClaims are PVCs that may be backend storage, oldest first, by a label and its value, and
// by their name as that of no label.
type backendClaims map[[2]string][]*corev1.PersistentVolumeClaim

func backendClaimsOf(pvcs []*corev1.PersistentVolumeClaim) backendClaims {
	claims := backendClaims{}
	for _, pvc := range pvcs {
		name, of, vmi := pvc.Name, pvc.Labels[kubevirtv1.MigrationNameLabel], pvc.Labels[persistentState]
		for _, key := range [][2]string{{"", name}, {kubevirtv1.MigrationNameLabel, of}, {persistentState, vmi}} {
			if key[1] != "" {
				claims[key] = append(claims[key], pvc)
			}
		}
	}
	return claims
}

// made returns the oldest of pvcs that KubeVirt has made for this VMI: it gives them the
// owners of the VMI, or the VMI as the owner if it has none (createPVC in its
// pkg/storage/backend-storage).
func (m *machine) made(pvcs ...*corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	owner := m.vmi.UID
	if controller := metav1.GetControllerOfNoCopy(m.vmi); controller != nil {
		owner = controller.UID
	}
	for _, pvc := range pvcs {
		if pvc == nil {
			continue
		}
		if controller := metav1.GetControllerOfNoCopy(pvc); controller != nil && controller.UID == owner {
			return pvc
		}
	}
	return nil
}

// claimsOf returns the backend-storage PVCs of the source and of the target,
// nil where there is none.
func (m *machine) claimsOf(
	vmim *kubevirtv1.VirtualMachineInstanceMigration,
) (source, target *corev1.PersistentVolumeClaim) {
	a := m.account(vmim.UID)
	sourceName, targetName := cmp.Or(a.sourceClaim, backendClaimName(m.vmi)), a.targetClaim
	source, target = first(m.backend[[2]string{"", sourceName}]), first(m.backend[[2]string{"", targetName}])
	if target != source && target != nil { // else both pods share it
		target = m.made(target) // a name that is free can be taken
	}
	if sourceName == "" {
		source = m.made(m.backend[[2]string{persistentState, m.vmi.Name}]...)
	}
	if targetName == "" && persists(m.vmi) {
		target = m.made(m.backend[[2]string{kubevirtv1.MigrationNameLabel, vmim.Name}]...)
	}
	return source, target
}

// backendClaimName returns the name of the PVC that vmi says it uses.
func backendClaimName(vmi *kubevirtv1.VirtualMachineInstance) string {
	for _, volume := range vmi.Status.VolumeStatus {
		if strings.HasPrefix(volume.Name, persistentState) && volume.PersistentVolumeClaimInfo != nil {
			return volume.PersistentVolumeClaimInfo.ClaimName
		}
	}
	return ""
}

// persists reports whether vmi needs backend storage: IsBackendStorageNeeded in KubeVirt's
// pkg/storage/backend-storage.
func persists(vmi *kubevirtv1.VirtualMachineInstance) bool {
	domain := &vmi.Spec.Domain
	if tpm := domain.Devices.TPM; tpm != nil && isTrue(tpm.Persistent) && (tpm.Enabled == nil || *tpm.Enabled) {
		return true
	}
	firmware := domain.Firmware
	if firmware != nil && firmware.Bootloader != nil && firmware.Bootloader.EFI != nil &&
		isTrue(firmware.Bootloader.EFI.Persistent) {
		return true
	}
	tracking := vmi.Status.ChangedBlockTracking
	return tracking != nil && (tracking.State == kubevirtv1.ChangedBlockTrackingInitializing ||
		tracking.State == kubevirtv1.ChangedBlockTrackingEnabled)
}

func isTrue(b *bool) bool { return b != nil && *b }
