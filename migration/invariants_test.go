package migration_test

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// broken returns the first invariant of migration.InFlight that got breaks as the
// answer to s, or nil. The objects of s must be ones that an API server stores: with
// names and UIDs of their own, and with no negative amounts.
func broken(s migration.Snapshot, got []quota.Migration) error {
	for i, m := range got {
		if i > 0 && got[i-1].UID >= m.UID {
			return fmt.Errorf("%s and %s: not sorted by UID, or one UID twice", got[i-1].UID, m.UID)
		}
		if err := malformed(m); err != nil {
			return fmt.Errorf("%s: %w", m.UID, err)
		}
	}
	known := map[string]bool{}
	for _, vmi := range s.VMIs {
		if vmi == nil {
			continue
		}
		known[vmi.Name] = true
		if err := brokenFor(vmi, s, got); err != nil {
			return fmt.Errorf("%s: %w", vmi.Name, err)
		}
	}
	for _, m := range got {
		if !known[m.VMI] {
			return fmt.Errorf("%s: of a VMI %q that is not there", m.UID, m.VMI)
		}
	}
	return nil
}

// malformed returns what is wrong with m on its own.
func malformed(m quota.Migration) error {
	if m.State != quota.Charged && m.Held != nil {
		return fmt.Errorf("%s holds %s", m.State, text(m.Held))
	}
	if m.State < quota.Queued || m.State > quota.Charged {
		return fmt.Errorf("state is %s", m.State)
	}
	if m.Surge == nil {
		return fmt.Errorf("surge is nil")
	}
	if m.State == quota.Charged && m.Held != nil && (len(m.Held) == 0 || quota.Equal(m.Held, m.Surge)) {
		return fmt.Errorf("held %s is all or nothing, and not nil", text(m.Held))
	}
	if err := malformedClaim(m.Surge, m.Held); err != nil {
		return err
	}
	var surge, hold corev1.ResourceList
	seen := map[quota.Traits]bool{}
	for _, share := range m.Shares {
		if seen[share.Traits] {
			return fmt.Errorf("two shares of the traits %+v", share.Traits)
		}
		seen[share.Traits] = true
		if err := malformedClaim(share.Surge, share.Held); err != nil {
			return fmt.Errorf("share of %+v: %w", share.Traits, err)
		}
		surge, hold = plus(surge, share.Surge), plus(hold, share.Held)
	}
	if m.Shares != nil && !(quota.Equal(surge, m.Surge) && quota.Equal(hold, m.Held)) {
		return fmt.Errorf("shares add up to %s, of which %s is held", text(surge), text(hold))
	}
	return nil
}

// malformedClaim returns what is wrong with a claim on a quota.
func malformedClaim(surge, held corev1.ResourceList) error {
	for name, q := range surge {
		if q.Sign() < 0 {
			return fmt.Errorf("surge of %s is negative: %s", name, q.String())
		}
		if !charges(name) {
			return fmt.Errorf("no pod and no claim is charged for %s", name)
		}
	}
	for name, q := range held {
		if all, ok := surge[name]; !ok || q.Sign() < 0 || q.Cmp(all) > 0 {
			return fmt.Errorf("held %s of %s is not part of the surge %s", q.String(), name, all.String())
		}
	}
	return nil
}

// charges reports whether quota charges pods or PersistentVolumeClaims for a resource
// of that name.
func charges(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourcePods, "count/pods", corev1.ResourcePersistentVolumeClaims, "count/persistentvolumeclaims",
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	default:
		return strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) ||
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) ||
			strings.Contains(string(name), ".storageclass.storage.k8s.io/") ||
			name == "count/resourceclaims.resource.k8s.io" || strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass)
	}
}

// brokenFor compares what got says of vmi with its pods.
func brokenFor(vmi *kubevirtv1.VirtualMachineInstance, s migration.Snapshot, got []quota.Migration) error {
	var temporary, usage corev1.ResourceList
	charged := 0
	for _, m := range got {
		if m.VMI != vmi.Name {
			continue
		}
		if m.State == quota.Charged {
			charged++
			temporary = plus(temporary, held(m))
			usage = plus(usage, claims(s)) // statuses may tell of one claim twice
		} else if vmi.DeletionTimestamp != nil || vmi.IsFinal() {
			return fmt.Errorf("%s is %s though the VMI ends", m.UID, m.State)
		}
		if vmim := vmimOf(s, m.UID); vmim != nil && m.State != quota.Charged && (vmim.IsFinal() || vmim.DeletionTimestamp != nil) {
			return fmt.Errorf("%s is %s though it is over", m.UID, m.State)
		}
	}
	if uid := doubled(vmi, s); uid != "" && !slices.ContainsFunc(got, func(m quota.Migration) bool {
		return m.UID == uid && m.State == quota.Charged
	}) {
		return fmt.Errorf("%s has two pods, and is not charged", uid)
	}
	pods := podsOf(vmi, s)
	for _, pod := range pods {
		usage = plus(usage, quota.FootprintAt(pod, s.Now))
	}
	switch {
	case lags(vmi, s):
		// Usage is ahead of the caches: nothing can be compared.
	case len(pods) < 2 && charged > 0 && len(s.PVCs) == 0:
		return fmt.Errorf("%d migrations are charged for %d pods", charged, len(pods))
	case !covers(usage, temporary):
		return fmt.Errorf("migrations hold %s of %s", text(temporary), text(usage))
	case len(pods) > 0 && count(temporary) > count(usage)-1:
		return fmt.Errorf("migrations hold all %d pods, and the VMI runs in none", len(pods))
	}
	return nil
}

// doubled returns the migration by which vmi has two charged virt-launcher pods, where
// that is beyond doubt: one pod has no label, the other that of a local VMIM, and no
// status contradicts. Otherwise it is "".
func doubled(vmi *kubevirtv1.VirtualMachineInstance, s migration.Snapshot) types.UID {
	var launchers []*corev1.Pod
	for _, pod := range s.Pods {
		if launches(pod, vmi) && alive(pod, s) {
			launchers = append(launchers, pod)
		}
	}
	if len(launchers) != 2 || vmi.Status.MigrationState != nil {
		return ""
	}
	source, target := launchers[0], launchers[1]
	if source.Labels[kubevirtv1.MigrationJobLabel] != "" {
		source, target = target, source
	}
	vmim := vmimOf(s, types.UID(target.Labels[kubevirtv1.MigrationJobLabel]))
	switch {
	case source.Labels[kubevirtv1.MigrationJobLabel] != "" || vmim == nil || vmim.Spec.VMIName != vmi.Name || vmim.IsDecentralized(),
		vmim.Status.Phase == kubevirtv1.MigrationSucceeded && source.CreationTimestamp.After(target.CreationTimestamp.Time),
		slices.ContainsFunc(vmim.Status.PhaseTransitionTimestamps, func(p kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp) bool {
			return vmim.IsFinal() && target.CreationTimestamp.After(p.PhaseTransitionTimestamp.Time)
		}),
		slices.ContainsFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
			return m != nil && m.Spec.VMIName == vmi.Name && m.Status.MigrationState != nil
		}):
		return ""
	}
	return vmim.UID
}

// podsOf returns the pods that quota charges because of vmi: virt-launcher pods, and
// what these own.
func podsOf(vmi *kubevirtv1.VirtualMachineInstance, s migration.Snapshot) []*corev1.Pod {
	var pods []*corev1.Pod
	launchers := map[types.UID]bool{}
	for _, pod := range s.Pods {
		if launches(pod, vmi) {
			launchers[pod.UID] = true
			if alive(pod, s) {
				pods = append(pods, pod)
			}
		}
	}
	for _, pod := range s.Pods {
		if pod != nil && len(pod.OwnerReferences) == 1 && launchers[pod.OwnerReferences[0].UID] && alive(pod, s) {
			pods = append(pods, pod)
		}
	}
	return pods
}

// launches reports whether pod is a virt-launcher pod of vmi.
func launches(pod *corev1.Pod, vmi *kubevirtv1.VirtualMachineInstance) bool {
	if pod == nil || pod.Labels[kubevirtv1.AppLabel] != "virt-launcher" || pod.Labels[kubevirtv1.CreatedByLabel] != string(vmi.UID) {
		return false
	}
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.UID == vmi.UID && owner.Kind == "VirtualMachineInstance"
}

func alive(pod *corev1.Pod, s migration.Snapshot) bool {
	_, ok := quota.FootprintAt(pod, s.Now)[corev1.ResourcePods]
	return ok
}

// lags reports whether KubeVirt says that it created a pod for vmi which the cache
// of pods does not have.
func lags(vmi *kubevirtv1.VirtualMachineInstance, s migration.Snapshot) bool {
	for _, vmim := range s.Migrations {
		if vmim != nil && vmim.Spec.VMIName == vmi.Name && vmim.TargetIsCreated() && !vmim.IsFinal() &&
			!slices.ContainsFunc(s.Pods, func(pod *corev1.Pod) bool {
				return launches(pod, vmi) && pod.Labels[kubevirtv1.MigrationJobLabel] == string(vmim.UID)
			}) {
			return true
		}
	}
	return false
}

func vmimOf(s migration.Snapshot, uid types.UID) *kubevirtv1.VirtualMachineInstanceMigration {
	for _, vmim := range s.Migrations {
		if vmim != nil && vmim.UID == uid {
			return vmim
		}
	}
	return nil
}

// claims returns what quota charges for all PersistentVolumeClaims of s.
func claims(s migration.Snapshot) corev1.ResourceList {
	var all corev1.ResourceList
	for _, pvc := range s.PVCs {
		all = plus(all, quota.ClaimFootprint(pvc))
	}
	for _, claim := range s.ResourceClaims {
		all = plus(all, quota.ResourceClaimFootprint(claim, nil))
	}
	return all
}

// held returns what usage contains of m.
func held(m quota.Migration) corev1.ResourceList {
	if m.State == quota.Charged && m.Held == nil {
		return m.Surge
	}
	return m.Held
}

// covers reports whether a is at least b on every resource of b.
func covers(a, b corev1.ResourceList) bool {
	for name, q := range b {
		if q.Cmp(a[name]) > 0 {
			return false
		}
	}
	return true
}

// count returns how many pods list has.
func count(list corev1.ResourceList) int64 {
	pods := list[corev1.ResourcePods]
	n, _ := pods.AsInt64()
	return n
}
