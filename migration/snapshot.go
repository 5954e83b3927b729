package migration

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A Snapshot is what informers hold about one namespace. The objects are read only.
// Nil objects and nil lists are allowed, the order does not matter, and objects that
// have nothing to do with virtual machines are ignored.
type Snapshot struct {
	Migrations  []*kubevirtv1.VirtualMachineInstanceMigration
	VMIs        []*kubevirtv1.VirtualMachineInstance
	Pods        []*corev1.Pod
	LimitRanges []*corev1.LimitRange
	PVCs        []*corev1.PersistentVolumeClaim

	// ResourceClaims are those that Kubernetes makes from templates for the devices of pods.
	// Without those of a source pod nothing is added for its target. DeviceClasses are those of the
	// cluster; without them the extended resources that they stand for are not counted.
	ResourceClaims []*resourcev1.ResourceClaim
	DeviceClasses  []*resourcev1.DeviceClass

	// Events are those that SelectRefusals selects, those with the reason
	// FailedResourceClaimCreation of pods, and may hold others. Without them a target pod that
	// needs more than the source and the VMI show (another overhead ratio, another KubeVirt) is
	// refused for good, because what quota was asked for stands nowhere else.
	//
	// Events are not authenticated: whoever may create them in the namespace, as Kubernetes' roles
	// admin and edit may, can claim up to four times what the migration would be charged otherwise,
	// until its target pod is there, or name a quota that does not exist as the one that refuses, so
	// that it gets no room. Where such tenants are not trusted, leave Events out, or cap claims by a
	// Budget of quota.Policy; what they take is told by the applier (HeadroomTaken).
	Events []*corev1.Event

	// Namespace is the namespace itself. It is read for one thing, its label
	// alpha.kubevirt.io/auto-memory-limits-ratio, up to 10. Nil: KubeVirt's default ratio.
	Namespace *corev1.Namespace
	// Now is the time of the snapshot. It is used for two things: a pod that is deleted and past its
	// grace period is no longer charged, and a migration that KubeVirt holds back after failures is
	// not in flight yet. Zero: pods are charged until they are terminal or gone, and nothing is held back.
	Now time.Time

	upgrade resource.Quantity // see IfAllMigrated
}

// InFlight returns the migrations in flight, sorted by UID; none is nil. It never
// fails: what it cannot make sense of is not in flight. The result shares no memory
// with s.
//
// A migration is in flight
//
//   - as Charged, while two pods of its VMI are charged because of it: until the
//     losing one (the source after success, the target after failure or abort) is
//     terminal or gone, whatever the VMIM says, and also when it is gone; and as long as its
//     backend-storage claim is charged, which Kubernetes keeps until the losing pod is deleted;
//   - as Blocked, while quota refuses its target pod (VMIM in Pending with the
//     condition migrationRejectedByResourceQuota);
//   - as Queued, from its creation until KubeVirt tries to create the target pod.
//
// It is not, without a VMI, or when nothing is charged and nothing will be: the VMIM
// is final or being deleted, or the VMI is, or utility volumes keep KubeVirt from creating a
// target pod (condition migrationBlockedByUtilityVolumes), or KubeVirt waits after failures.
//
// The pods of a VMI are those that it controls, and the claims of its backend storage those
// with the owner that KubeVirt gives them: tenants write labels and names.
//
// Surge is what quota charges for the target pod, its hot-plug attachment pod, its
// ResourceClaims from templates and its backend-storage claim, less the growth of a guest that
// this migration carries out. Before there is a target pod, it is the source pod with what
// KubeVirt and the API server would render into it anew (LimitRange, automatic limits, memory
// overhead), and no less than what quota said that it was asked for when it refused the target.
// Once the migration has succeeded it is what the source still charges. Amounts that nobody can
// calculate with, such as 1e999, which the API server takes, are left out. A decentralized
// migration (spec.sendTo or spec.receive) doubles nothing in its namespace: it has no surge.
//
// Held is nil where all or nothing is held.
func InFlight(s Snapshot) []quota.Migration {
	if s.isQuiet() {
		return nil
	}
	var inFlight []quota.Migration
	for _, m := range machines(&s) {
		inFlight = append(inFlight, m.inFlight()...)
	}
	slices.SortFunc(inFlight, func(a, b quota.Migration) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(a.VMI, b.VMI))
	})
	// Nobody but a forger labels pods of two VMIs with one migration.
	return slices.CompactFunc(inFlight, func(a, b quota.Migration) bool { return a.UID == b.UID })
}

// isQuiet reports whether nothing can be in flight in s: all migrations are over, no two
// pods run for the same VMI, and no claim is being deleted.
func (s *Snapshot) isQuiet() bool {
	for _, vmim := range s.Migrations {
		if vmim != nil && !vmim.IsFinal() {
			return false
		}
	}
	for _, pvc := range s.PVCs {
		if pvc != nil && pvc.DeletionTimestamp != nil { // see leftStorage
			return false
		}
	}
	seen := make(map[types.UID]struct{}, len(s.Pods))
	for _, pod := range s.Pods {
		if pod == nil || pod.Labels[kubevirtv1.AppLabel] != "virt-launcher" {
			continue
		}
		vmi := launchedFor(pod)
		if _, doubled := seen[vmi]; doubled {
			return false
		}
		seen[vmi] = struct{}{}
	}
	return true
}
