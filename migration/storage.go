package migration

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
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
	case second != nil:
		return claim{{traits: quota.TraitsOfClaim(second), surge: quota.ClaimFootprint(second), held: true}}
	}
	if over || source == nil || !m.persists() || shared(source) {
		return nil
	}
	return claim{{traits: quota.TraitsOfClaim(source), surge: quota.ClaimFootprint(source)}}
}

// backendClaims finds PVCs that may be backend storage.
type backendClaims struct {
	named       map[string]*corev1.PersistentVolumeClaim
	ofMigration map[string]*corev1.PersistentVolumeClaim // made for the target, by the name of the VMIM
	ofVMI       map[string]*corev1.PersistentVolumeClaim // by the name of the VMI
}

// backendClaimsOf indexes pvcs. Of several with the same label the first counts.
func backendClaimsOf(pvcs []*corev1.PersistentVolumeClaim) backendClaims {
	index := func(key func(*corev1.PersistentVolumeClaim) string) map[string]*corev1.PersistentVolumeClaim {
		index := map[string]*corev1.PersistentVolumeClaim{}
		for _, pvc := range pvcs {
			if k := key(pvc); k != "" && index[k] == nil {
				index[k] = pvc
			}
		}
		return index
	}
	return backendClaims{
		named:       index(func(pvc *corev1.PersistentVolumeClaim) string { return pvc.Name }),
		ofMigration: index(func(pvc *corev1.PersistentVolumeClaim) string { return pvc.Labels[kubevirtv1.MigrationNameLabel] }),
		ofVMI:       index(func(pvc *corev1.PersistentVolumeClaim) string { return pvc.Labels[persistentState] }),
	}
}

// claimsOf returns the backend-storage PVCs of the source and of the target,
// nil where there is none.
func (m *machine) claimsOf(vmim *kubevirtv1.VirtualMachineInstanceMigration) (source, target *corev1.PersistentVolumeClaim) {
	sourceName, targetName := m.backendClaimName(), ""
	for _, state := range []*kubevirtv1.VirtualMachineInstanceMigrationState{m.stateOf(vmim), vmim.Status.MigrationState} {
		if state != nil && state.SourcePersistentStatePVCName != "" {
			sourceName = state.SourcePersistentStatePVCName
		}
		if state != nil && state.TargetPersistentStatePVCName != "" {
			targetName = state.TargetPersistentStatePVCName
		}
	}
	source, target = m.backend.named[sourceName], m.backend.named[targetName]
	if sourceName == "" {
		source = m.backend.ofVMI[m.vmi.Name]
	}
	if targetName == "" && m.persists() {
		target = m.backend.ofMigration[vmim.Name]
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

// backendClaimName returns the name of the PVC that the VMI says it uses.
func (m *machine) backendClaimName() string {
	for _, volume := range m.vmi.Status.VolumeStatus {
		if strings.HasPrefix(volume.Name, persistentState) && volume.PersistentVolumeClaimInfo != nil {
			return volume.PersistentVolumeClaimInfo.ClaimName
		}
	}
	return ""
}

// persists reports whether the VMI needs backend storage: IsBackendStorageNeeded in
// KubeVirt's pkg/storage/backend-storage.
func (m *machine) persists() bool {
	domain := m.vmi.Spec.Domain
	if tpm := domain.Devices.TPM; tpm != nil && isTrue(tpm.Persistent) && (tpm.Enabled == nil || *tpm.Enabled) {
		return true
	}
	if f := domain.Firmware; f != nil && f.Bootloader != nil && f.Bootloader.EFI != nil && isTrue(f.Bootloader.EFI.Persistent) {
		return true
	}
	tracking := m.vmi.Status.ChangedBlockTracking
	return tracking != nil &&
		(tracking.State == kubevirtv1.ChangedBlockTrackingInitializing || tracking.State == kubevirtv1.ChangedBlockTrackingEnabled)
}

func isTrue(b *bool) bool { return b != nil && *b }

// shared reports whether source and target can use the same PVC.
func shared(pvc *corev1.PersistentVolumeClaim) bool {
	return len(pvc.Status.AccessModes) > 0 && pvc.Status.AccessModes[0] == corev1.ReadWriteMany
}
