package migration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A Wait is what a migration waits for that has no target pod, or one that is not scheduled.
type Wait struct {
	UID types.UID // of the VirtualMachineInstanceMigration
	// Reason is one of this package, or that of a quota.Deferral, of this package or applier.
	Reason quota.DeferralReason
	// Message is a sentence for whoever owns the virtual machine.
	Message string
	// Until is when KubeVirt goes on by itself; zero if that depends on something else.
	Until time.Time
}

// Reasons of a [Wait] beside those of packages quota and applier.
const (
	// UtilityVolumes means that KubeVirt waits until they are detached.
	UtilityVolumes quota.DeferralReason = "UtilityVolumes"
	// Backup means that KubeVirt waits for the end of a backup.
	Backup quota.DeferralReason = "Backup"
	// BackOff means that the migrations of this machine that KubeVirt began itself have failed,
	// and that it waits before the next one.
	BackOff quota.DeferralReason = "BackOff"
	// NoNodeFits means that the scheduler finds no node for the target pod.
	NoNodeFits quota.DeferralReason = "NoNodeFits"
	// QuotaExceeded means that a quota has refused the target pod, or would, and that room is
	// about to be made.
	QuotaExceeded quota.DeferralReason = "QuotaExceeded"
)

// Waiting returns what the migrations of s wait for, in the order of their UIDs. InFlight is
// that of s, and quotas are what an applier has made of that, in Result.Quotas or by
// applier.Plan. A migration that waits for nothing that is known is left out. The result
// shares no memory with s.
func Waiting(s Snapshot, inFlight []quota.Migration, quotas []applier.QuotaResult) []Wait {
	var waits []Wait
	for _, vmim := range s.Migrations {
		if vmim == nil || vmim.IsFinal() || vmim.DeletionTimestamp != nil {
			continue
		}
		w := Wait{UID: vmim.UID}
		if w.Until = backOff(vmim, s.Migrations); s.Now.Before(w.Until) {
			w.Reason, w.Message = BackOff, fmt.Sprintf("Earlier migrations of the virtual machine have failed, "+
				"and KubeVirt waits until %s.", w.Until.UTC().Format(time.RFC3339))
		} else {
			w.Until = time.Time{}
			w.Reason, w.Message = s.waits(vmim, inFlight, quotas)
		}
		if w.Reason != "" {
			waits = append(waits, w)
		}
	}
	slices.SortFunc(waits, func(a, b Wait) int { return cmp.Compare(a.UID, b.UID) })
	return waits
}

// waits returns what vmim waits for. What lasts longest goes first.
func (s *Snapshot) waits(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, inFlight []quota.Migration, quotas []applier.QuotaResult,
) (reason quota.DeferralReason, message string) {
	switch phase := vmim.Status.Phase; {
	case phase == kubevirtv1.MigrationScheduling:
		if why, isWaiting := s.unscheduled(vmim); isWaiting {
			return NoNodeFits, strings.TrimSpace("No node fits its target pod. " + why)
		}
		return "", ""
	case !isPending(vmim):
		return "", ""
	case gated(vmim):
		return UtilityVolumes, "KubeVirt waits until the utility volumes of the virtual machine are detached."
	}
	m, known := find(inFlight, vmim.UID)
	backsUp := pendingWith(vmim, kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup)
	if !known || m.State >= quota.Charged && !backsUp {
		return "", ""
	}
	for _, q := range quotas {
		if d, is := about(q.Decision.Deferred, m.UID); is {
			return d.Reason, fmt.Sprintf("ResourceQuota %s: %s.", q.Name, applier.Sentence(d, m))
		}
	}
	if backsUp && m.State != quota.Blocked {
		return Backup, "KubeVirt waits until the backup of the virtual machine has ended."
	}
	return inQueue(m, quotas)
}

// inQueue returns what a migration waits for that is not deferred.
func inQueue(m quota.Migration, quotas []applier.QuotaResult) (quota.DeferralReason, string) {
	var reason quota.DeferralReason
	message := ""
	for _, q := range quotas {
		d, is := about(q.Queued, m.UID)
		switch {
		case is && (d.Reason == applier.InTurn || d.Reason == applier.OfferLapsed) && d.Missing != nil:
			return d.Reason, fmt.Sprintf("ResourceQuota %s has not enough left, %s is missing: %s.",
				q.Name, amounts.Text(d.Missing, ", "), applier.Sentence(d, m))
		case is && d.Reason != applier.InTurn: // what fits is not in turn, it comes
			reason, message = d.Reason, applier.Sentence(d, m)+"."
		case reason == "" && slices.Contains(q.Offered, m.UID):
			reason = QuotaExceeded
			message = "ResourceQuota " + q.Name + " has room for its target pod now, and KubeVirt is about to create it."
		case reason == "" && m.RefusedBy == q.Name && m.State == quota.Blocked:
			reason = QuotaExceeded
			message = "ResourceQuota " + q.Name + " has refused its target pod, and room is about to be made."
		}
	}
	return reason, message
}

// find finds a migration in a list that is sorted by UID.
func find(inFlight []quota.Migration, uid types.UID) (m quota.Migration, ok bool) {
	i, ok := slices.BinarySearchFunc(inFlight, uid, func(m quota.Migration, uid types.UID) int {
		return cmp.Compare(m.UID, uid)
	})
	if ok {
		m = inFlight[i]
	}
	return m, ok
}

func about(deferrals []quota.Deferral, uid types.UID) (quota.Deferral, bool) {
	i := slices.IndexFunc(deferrals, func(d quota.Deferral) bool { return d.UID == uid })
	if i < 0 {
		return quota.Deferral{}, false
	}
	return deferrals[i], true
}

// unscheduled returns what the scheduler says of the target pod of vmim, if it finds no node.
func (s *Snapshot) unscheduled(vmim *kubevirtv1.VirtualMachineInstanceMigration) (why string, is bool) {
	for _, pod := range s.Pods {
		if pod == nil || jobOf(pod) != vmim.UID || launchedFor(pod) == "" || pod.Spec.NodeName != "" {
			continue
		}
		for _, c := range pod.Status.Conditions {
			if unschedulable(c) {
				return c.Message, true
			}
		}
	}
	return "", false
}

// unschedulable reports whether c says that the scheduler has found no node.
func unschedulable(c corev1.PodCondition) bool {
	return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse &&
		c.Reason != corev1.PodReasonSchedulingGated
}

// firstBackOff doubles with each failure.
const firstBackOff = 20 * time.Second

// backOff returns until when KubeVirt creates no target pod for vmim after failures of others of
// migrations, long ago if it does not wait: handleMigrationBackoff in its
// pkg/virt-controller/watch/migration/migration.go. What quota has refused has waited already.
func backOff(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, migrations []*kubevirtv1.VirtualMachineInstanceMigration,
) time.Time {
	if !isAutomatic(vmim) || !isPending(vmim) || refused(vmim) {
		return time.Time{}
	}
	before := slices.DeleteFunc(oldestFirst(migrations), func(other *kubevirtv1.VirtualMachineInstanceMigration) bool {
		return other.UID == vmim.UID || other.Spec.VMIName != vmim.Spec.VMIName || !isAutomatic(other)
	})
	failures := 0
	for _, other := range slices.Backward(before) {
		if other.CreationTimestamp.After(vmim.CreationTimestamp.Time) {
			return time.Time{} // KubeVirt asks the newest only
		}
		if other.Status.Phase == kubevirtv1.MigrationSucceeded {
			break
		}
		if other.Status.Phase == kubevirtv1.MigrationFailed && other.DeletionTimestamp == nil {
			failures++
		}
	}
	if failures == 0 {
		return time.Time{}
	}
	if failed := enteredAt(before[len(before)-1], kubevirtv1.MigrationFailed); !failed.IsZero() {
		return failed.Add(firstBackOff << min(failures-1, 10))
	}
	return time.Time{}
}

func isPending(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return vmim.Status.Phase == kubevirtv1.MigrationPending || vmim.Status.Phase == kubevirtv1.MigrationPhaseUnset
}

// isAutomatic reports whether KubeVirt has made vmim, to evacuate a node or to update a
// virtual machine.
func isAutomatic(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	_, evacuates := vmim.Annotations[kubevirtv1.EvacuationMigrationAnnotation]
	_, updates := vmim.Annotations[kubevirtv1.WorkloadUpdateMigrationAnnotation]
	return evacuates || updates
}
