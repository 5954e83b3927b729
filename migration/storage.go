package migration

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// persistentState is how KubeVirt names the volumes and labels the claims of its
// backend storage, which persists a TPM or EFI variables: PVCPrefix in its
// pkg/storage/backend-storage.
const persistentState = "persistent-state-for"

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

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
	if over || source == nil || !persists(m.vmi) || shared(source) {
		return nil
	}
	return claim{{traits: quota.TraitsOfClaim(source), surge: quota.ClaimFootprint(calculableClaim(source))}}
}

// backendClaims finds PVCs that may be backend storage, oldest first.
type backendClaims struct {
	named       map[string]*corev1.PersistentVolumeClaim
	ofMigration map[string][]*corev1.PersistentVolumeClaim // made for the target, by the name of the VMIM
	ofVMI       map[string][]*corev1.PersistentVolumeClaim // by the name of the VMI
}

func backendClaimsOf(pvcs []*corev1.PersistentVolumeClaim) backendClaims {
	claims := backendClaims{
		named:       map[string]*corev1.PersistentVolumeClaim{},
		ofMigration: map[string][]*corev1.PersistentVolumeClaim{},
		ofVMI:       map[string][]*corev1.PersistentVolumeClaim{},
	}
	for _, pvc := range pvcs {
		if claims.named[pvc.Name] == nil {
			claims.named[pvc.Name] = pvc
		}
		if name := pvc.Labels[kubevirtv1.MigrationNameLabel]; name != "" {
			claims.ofMigration[name] = append(claims.ofMigration[name], pvc)
		}
		if name := pvc.Labels[persistentState]; name != "" {
			claims.ofVMI[name] = append(claims.ofVMI[name], pvc)
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
func (m *machine) claimsOf(vmim *kubevirtv1.VirtualMachineInstanceMigration) (source, target *corev1.PersistentVolumeClaim) {
	sourceName, targetName := backendClaimName(m.vmi), ""
	for _, state := range []*kubevirtv1.VirtualMachineInstanceMigrationState{m.stateOf(vmim), vmim.Status.MigrationState} {
		if state != nil && state.SourcePersistentStatePVCName != "" {
			sourceName = state.SourcePersistentStatePVCName
		}
		if state != nil && state.TargetPersistentStatePVCName != "" {
			targetName = state.TargetPersistentStatePVCName
		}
	}
	source, target = m.backend.named[sourceName], m.backend.named[targetName]
	if target != source && target != nil { // else both pods share it
		target = m.made(target) // a name that is free can be taken
	}
	if sourceName == "" {
		source = m.made(m.backend.ofVMI[m.vmi.Name]...)
	}
	if targetName == "" && persists(m.vmi) {
		target = m.made(m.backend.ofMigration[vmim.Name]...)
	}
	return source, target
}

// stateOf returns the VMI's migration state if it is about vmim.
func (m *machine) stateOf(vmim *kubevirtv1.VirtualMachineInstanceMigration) *kubevirtv1.VirtualMachineInstanceMigrationState {
	if m.handed(vmim.UID) {
		return m.vmi.Status.MigrationState
	}
	return nil
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
	if f := domain.Firmware; f != nil && f.Bootloader != nil && f.Bootloader.EFI != nil && isTrue(f.Bootloader.EFI.Persistent) {
		return true
	}
	tracking := vmi.Status.ChangedBlockTracking
	return tracking != nil &&
		(tracking.State == kubevirtv1.ChangedBlockTrackingInitializing || tracking.State == kubevirtv1.ChangedBlockTrackingEnabled)
}

func isTrue(b *bool) bool { return b != nil && *b }

// shared reports whether source and target can use the same PVC.
func shared(pvc *corev1.PersistentVolumeClaim) bool {
	return len(pvc.Status.AccessModes) > 0 && pvc.Status.AccessModes[0] == corev1.ReadWriteMany
}
