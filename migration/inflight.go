package migration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// inFlight returns the migrations of m that are in flight.
func (m *machine) inFlight() []quota.Migration {
	current, extras := m.pairs()
	var inFlight []quota.Migration
	for _, vmim := range m.migrations {
		x, doubled := extras[vmim.UID]
		switch {
		case vmim.IsDecentralized():
			if !m.over(vmim) {
				inFlight = append(inFlight, m.describe(vmim, quota.Queued, claim{}))
			}
		case doubled:
			charged := m.describe(vmim, quota.Charged, m.chargedClaim(vmim, current, x))
			charged.RefusedBy = m.claimRefusedBy(x)
			inFlight = append(inFlight, charged)
		case m.comes(vmim, current):
			if waiting := m.waiting(vmim, current); waiting.State == quota.Charged || !m.gated(vmim) {
				inFlight = append(inFlight, waiting)
			}
		}
	}
	for uid, x := range extras {
		if m.vmim(uid) == nil {
			inFlight = append(inFlight, m.orphan(uid, current, x))
		}
	}
	takeTurns(inFlight)
	for _, vmim := range m.migrations {
		if _, doubled := extras[vmim.UID]; vmim.IsFinal() && !doubled {
			if left := m.leftStorage(vmim); left != nil {
				inFlight = append(inFlight, m.describe(vmim, quota.Charged, left))
			}
		}
	}
	return inFlight
}

// takeTurns leaves at most one of the migrations of a VMI Blocked, the oldest, and
// none beside a Charged one: KubeVirt creates a target pod only while the VMI has a
// single pod (handleTargetPodCreation in its pkg/virt-controller/watch/migration/migration.go).
func takeTurns(migrations []quota.Migration) {
	taken := slices.ContainsFunc(migrations, func(m quota.Migration) bool { return m.State == quota.Charged })
	for i := range migrations {
		if migrations[i].State == quota.Blocked {
			if taken {
				migrations[i].State = quota.Queued
			}
			taken = true
		}
	}
}

// over reports whether KubeVirt has ended vmim, or will, because it or its VMI ends.
func (m *machine) over(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return vmim.IsFinal() || vmim.DeletionTimestamp != nil || m.vmi.IsFinal() || m.vmi.DeletionTimestamp != nil
}

// comes reports whether KubeVirt will still create a target pod for vmim, or has and
// our caches have not seen it. See sync and updateStatus in KubeVirt's
// pkg/virt-controller/watch/migration/migration.go.
func (m *machine) comes(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) bool {
	if m.over(vmim) || m.account(vmim.UID).won {
		return false
	}
	for _, pod := range m.launchers {
		// Its target pod is terminal, or all that is left of the pair.
		if jobOf(pod) == vmim.UID {
			return false
		}
	}
	// Without a source pod there is nothing to double, unless our caches lag.
	return current != nil || len(m.launchers) == 0
}

// waiting describes a migration whose target pod is not there.
func (m *machine) waiting(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) quota.Migration {
	c := m.expectedClaim(vmim, current)
	state := quota.Queued
	switch {
	case vmim.TargetIsCreated():
		// The pod was created, and is not in our caches yet; its usage came first.
		for i := range c {
			c[i].held = true
		}
		state = quota.Charged
	case c.holdsAny():
		state = quota.Charged
	case m.refused(vmim):
		state = quota.Blocked
	}
	described := m.describe(vmim, state, c)
	if state < quota.Charged {
		described.Growth = m.expectedGrowth(vmim, current)
	}
	if state == quota.Blocked {
		described.RefusedBy = refusedBy(m.refusalsOf(vmim), podRefusal)
	}
	return described
}

// orphan describes a migration whose VMIM is gone.
func (m *machine) orphan(uid types.UID, current *corev1.Pod, x extra) quota.Migration {
	vmim := &kubevirtv1.VirtualMachineInstanceMigration{}
	vmim.UID, vmim.DeletionTimestamp = uid, &metav1.Time{}
	if !x.lost {
		vmim.CreationTimestamp = x.pod.CreationTimestamp
	}
	return m.describe(vmim, quota.Charged, m.chargedClaim(vmim, current, x))
}

func (m *machine) describe(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, state quota.State, c claim,
) quota.Migration {
	described := quota.Migration{
		UID:      vmim.UID,
		VMI:      m.vmi.Name,
		State:    state,
		Priority: priority(vmim),
		Created:  vmim.CreationTimestamp,
		Node:     m.vmi.Status.NodeName,
		// KubeVirt has ended it, so it takes none of its parallel migrations any more.
		Over: state == quota.Charged && (vmim.IsFinal() || m.vmim(vmim.UID) == nil),
	}
	c.fill(&described)
	return described
}

// refused reports whether quota refuses the target pod of vmim. During a backup the status
// of vmim does not say so, while KubeVirt creates target pods all the same: handleVMBackup in
// its pkg/virt-controller/watch/migration/migration.go. Then its event does.
func (m *machine) refused(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return refused(vmim) ||
		pendingWith(vmim, kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup) &&
			refusedBy(m.refusalsOf(vmim), podRefusal) != ""
}

// refused reports whether the status of vmim says that quota refuses its target pod.
func refused(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return pendingWith(vmim, kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota)
}

// gated reports whether KubeVirt creates no target pod for vmim now, even if there is room.
func (m *machine) gated(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return gated(vmim) || !m.Now.IsZero() && m.Now.Before(backOff(vmim, m.migrations))
}

// gated reports whether KubeVirt creates no target pod for vmim, because utility volumes are
// attached to the VMI. It fails vmim if they are there for too long.
func gated(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return pendingWith(vmim, kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes)
}

// pendingWith reports whether vmim is in Pending with that condition. KubeVirt leaves
// conditions on a VMIM that failed, so they say something in Pending only.
func pendingWith(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, condition kubevirtv1.VirtualMachineInstanceMigrationConditionType,
) bool {
	return vmim.Status.Phase == kubevirtv1.MigrationPending &&
		slices.ContainsFunc(vmim.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return c.Type == condition && c.Status == corev1.ConditionTrue
		})
}

// priorities are those of KubeVirt's queue: PriorityFromMigration in its pkg/util/migrations.
var priorities = map[kubevirtv1.MigrationPriority]int32{
	kubevirtv1.PrioritySystemCritical:    100,
	kubevirtv1.PriorityUserTriggered:     50,
	kubevirtv1.PrioritySystemMaintenance: 20,
}

func priority(vmim *kubevirtv1.VirtualMachineInstanceMigration) int32 {
	if vmim.Spec.Priority == nil {
		return 0
	}
	return priorities[*vmim.Spec.Priority]
}
