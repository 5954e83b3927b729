package fake

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/virthandler"
)

// updateMigration writes the status of m, and lets go of it when it has ended: failed is what went wrong in
// this round.
func (k *virtController) updateMigration(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod, failed error) error {
	updated := m.DeepCopy()
	k.setMigrationStatus(m, updated, vmi, target, failed)
	k.noteSource(updated, vmi)
	if updated.Status.Phase != m.Status.Phase {
		updated.Status.PhaseTransitionTimestamps = append(updated.Status.PhaseTransitionTimestamps,
			kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{Phase: updated.Status.Phase, PhaseTransitionTimestamp: k.stamp()})
	}
	if !equality.Semantic.DeepEqual(m.Status, updated.Status) {
		k.sleep()
		_, err := k.update(virtControllerUser, updated, true)
		return err // what is left to do, the next round does
	}
	if len(m.Finalizers) > 0 && m.IsFinal() {
		k.sleep()
		updated.Finalizers = nil
		_, err := k.update(virtControllerUser, updated, false)
		return err
	}
	return nil
}

// setMigrationStatus finds in which case the migration is, in KubeVirt's order.
func (k *virtController) setMigrationStatus(m, updated *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod, failed error) {
	state := vmi.Status.MigrationState
	mine := state != nil && state.MigrationUID == m.UID
	switch {
	case m.IsFinal():
		if mine {
			updated.Status.MigrationState = state.DeepCopy()
		}
	case vmi.IsFinal():
		k.fail(updated)
	case m.DeletionTimestamp != nil && !mine:
		k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationAbortRequested, true)
		k.fail(updated)
	case target != nil && ended(target),
		m.TargetIsCreated() && target == nil,
		m.TargetIsHandedOff() && !mine,
		mine && state.Failed:
		k.fail(updated)
	case m.DeletionTimestamp != nil && !hasCondition(m, kubevirtv1.VirtualMachineInstanceMigrationAbortRequested):
		k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationAbortRequested, true)
	default:
		k.setPhaseOf(m, updated, vmi, target, failed)
	}
}

// fail ends a migration without success. Its backend-storage claim goes.
func (k *virtController) fail(m *kubevirtv1.VirtualMachineInstanceMigration) {
	if claim := k.targetClaim(m); claim != nil {
		_ = k.discard(Claims, claim.Namespace, claim.Name) // or it is gone already
	}
	m.Status.Phase = kubevirtv1.MigrationFailed
}

// setPhaseOf moves a migration on that goes well.
func (k *virtController) setPhaseOf(m, updated *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod, failed error) {
	state := vmi.Status.MigrationState
	next := m.Status.Phase
	switch m.Status.Phase {
	case kubevirtv1.MigrationPhaseUnset:
		switch {
		case !k.eligible(m, vmi):
			k.fail(updated)
			next = kubevirtv1.MigrationFailed
		// One to or from another cluster waits for the other side, which is not simulated.
		case m.IsDecentralizedTarget():
			next = kubevirtv1.MigrationWaitingForSync
		case m.IsDecentralizedSource():
			next = kubevirtv1.MigrationSynchronizing
		default:
			next = kubevirtv1.MigrationPending
		}
	case kubevirtv1.MigrationPending:
		switch {
		case k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup, backsUp(vmi)):
		case k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes, len(vmi.Spec.UtilityVolumes) > 0):
		case target != nil && (!hotplugs(vmi) || k.attached(target)):
			next = kubevirtv1.MigrationScheduling
		case target == nil && failed != nil && strings.Contains(failed.Error(), "exceeded quota"):
			k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota, true)
		}
	case kubevirtv1.MigrationScheduling:
		k.setCondition(updated, kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota, false)
		if ready(target) && (!hotplugs(vmi) || k.attached(target)) {
			next = kubevirtv1.MigrationScheduled
		}
	case kubevirtv1.MigrationScheduled:
		if state != nil && state.MigrationUID == m.UID && state.TargetNode != "" {
			next = kubevirtv1.MigrationPreparingTarget
		}
	case kubevirtv1.MigrationPreparingTarget:
		if state.TargetNodeAddress != "" {
			next = kubevirtv1.MigrationTargetReady
		}
	case kubevirtv1.MigrationTargetReady:
		if state.StartTimestamp != nil {
			next = kubevirtv1.MigrationRunning
		}
	case kubevirtv1.MigrationRunning:
		if state.TargetNodeDomainReadyTimestamp != nil {
			k.handOffClaim(m, vmi)
		}
		if state.Completed && !changing(vmi) {
			next = kubevirtv1.MigrationSucceeded
		}
	default:
	}
	updated.Status.Phase = next
}

func backsUp(vmi *kubevirtv1.VirtualMachineInstance) bool {
	tracking := vmi.Status.ChangedBlockTracking
	return tracking != nil && tracking.BackupStatus != nil && !tracking.BackupStatus.Completed
}

// attached reports whether the attachment pod of target runs.
func (k *virtController) attached(target *corev1.Pod) bool {
	return slices.ContainsFunc(k.store.podsOf(target), ready)
}

// changing reports whether a hot-plug of vmi is under way.
func changing(vmi *kubevirtv1.VirtualMachineInstance) bool {
	memory := vmiCondition(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange)
	return vmiCondition(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange) != nil ||
		memory != nil && memory.Status == corev1.ConditionTrue
}

// noteSource writes down where the migration comes from while it is pending.
func (k *virtController) noteSource(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) {
	source := k.current(vmi)
	if m.Status.Phase != kubevirtv1.MigrationPending || source == nil {
		return
	}
	if m.Status.MigrationState == nil {
		m.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{}
	}
	m.Status.MigrationState.SourcePod = source.Name
	if claim := k.targetClaim(m); claim != nil {
		m.Status.MigrationState.TargetPersistentStatePVCName = claim.Name
		if source := k.backendClaim(vmi); source != nil {
			m.Status.MigrationState.SourcePersistentStatePVCName = source.Name
		}
	}
}

// handOffClaim makes the target's backend-storage claim the one of vmi.
func (k *virtController) handOffClaim(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) {
	target := k.targetClaim(m)
	if target == nil {
		return
	}
	source := k.backendClaim(vmi)
	write(k.Cluster, virtControllerUser, target, func(claim *corev1.PersistentVolumeClaim) {
		delete(claim.Labels, kubevirtv1.MigrationNameLabel)
		claim.Labels[persistentState] = vmi.Name
	})
	if source != nil {
		_ = k.discard(Claims, source.Namespace, source.Name)
	}
}

// wakePending wakes those that may take the place of one that has ended: the first of the pending ones by
// priority, in the whole cluster.
func (k *virtController) wakePending() {
	pending := slices.DeleteFunc(all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, ""), func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
		return m.Status.Phase != kubevirtv1.MigrationPending
	})
	slices.SortStableFunc(pending, func(a, b *kubevirtv1.VirtualMachineInstanceMigration) int {
		return cmp.Compare(priorityOf(b).rank, priorityOf(a).rank)
	})
	for _, m := range pending[:min(len(pending), parallelMigrations)] {
		k.migrations.add(key(m), 0)
	}
}

// collectMigrations deletes all but the latest ended migrations of vmi, with the pods that they left behind.
func (k *virtController) collectMigrations(vmi *kubevirtv1.VirtualMachineInstance) error {
	done := slices.DeleteFunc(all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, vmi.Namespace), func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
		return m.Spec.VMIName != vmi.Name || !m.IsFinal() || m.DeletionTimestamp != nil
	})
	slices.SortStableFunc(done, func(a, b *kubevirtv1.VirtualMachineInstanceMigration) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for _, m := range done[:max(0, len(done)-keptMigrations)] {
		if state := m.Status.MigrationState; state != nil && (state.Failed || state.Completed) {
			if err := k.discard(Pods, m.Namespace, virthandler.Loser(state)); err != nil {
				return err
			}
		}
		if err := k.discard(Migrations, m.Namespace, m.Name); err != nil {
			return err
		}
	}
	return nil
}
