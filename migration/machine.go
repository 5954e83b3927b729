package migration

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A machine is one VMI with all that belongs to it.
type machine struct {
	*objects
	vmi        *kubevirtv1.VirtualMachineInstance
	migrations []*kubevirtv1.VirtualMachineInstanceMigration // oldest first
	launchers  []*corev1.Pod                                 // virt-launcher pods, oldest first
}

// objects are what the machines of a snapshot share.
type objects struct {
	*Snapshot
	vmims    map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration
	defaults corev1.ResourceRequirements // of the LimitRanges
	backend  backendClaims
	refusals map[types.UID][]*corev1.Event // by the object that they are about
	devices  deviceClaims

	attachments map[types.UID][]*corev1.Pod // hot-plug attachment pods by launcher, oldest first
}

// machines returns those of s that have a migration, or more than one pod. It is where
// amounts that cannot be calculated with are dropped.
func machines(s *Snapshot) []*machine {
	shared := &objects{
		Snapshot: s,
		vmims:    make(map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration, len(s.Migrations)),
		defaults: defaultsOf(s.LimitRanges),
		backend:  backendClaimsOf(oldestFirst(s.PVCs)),
		refusals: refusalsOf(s.Events),
		devices:  deviceClaimsOf(s),

		attachments: map[types.UID][]*corev1.Pod{},
	}
	byUID := make(map[types.UID]*machine, len(s.VMIs))
	byName := make(map[string]*machine, len(s.VMIs))
	for _, vmi := range oldestFirst(s.VMIs) {
		if byUID[vmi.UID] == nil {
			m := &machine{objects: shared, vmi: calculableVMI(vmi)}
			byUID[vmi.UID], byName[vmi.Name] = m, m
		}
	}
	for _, vmim := range oldestFirst(s.Migrations) {
		if shared.vmims[vmim.UID] != nil {
			continue // a UID is unique
		}
		shared.vmims[vmim.UID] = vmim
		if m := byName[vmim.Spec.VMIName]; m != nil {
			m.migrations = append(m.migrations, vmim)
		}
	}
	for _, pod := range oldestFirst(s.Pods) {
		switch pod.Labels[kubevirtv1.AppLabel] {
		case "virt-launcher":
			if m := byUID[launchedFor(pod)]; m != nil {
				m.launchers = append(m.launchers, calculablePod(pod))
			}
		case "hotplug-disk":
			owner := ownerPod(pod)
			shared.attachments[owner] = append(shared.attachments[owner], calculablePod(pod))
		}
	}
	var busy []*machine
	for _, m := range byUID {
		if len(m.migrations) > 0 || len(m.launchers) > 1 {
			busy = append(busy, m)
		}
	}
	return busy
}

// oldestFirst returns a sorted copy of list without the nil objects. Its order does
// not depend on that of list.
func oldestFirst[E any, T interface {
	*E
	metav1.Object
}](list []T) []T {
	sorted := slices.DeleteFunc(slices.Clone(list), func(object T) bool { return object == nil })
	slices.SortFunc(sorted, func(a, b T) int {
		return cmp.Or(
			a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time),
			cmp.Compare(a.GetUID(), b.GetUID()),
			cmp.Compare(a.GetName(), b.GetName()),
		)
	})
	return sorted
}

// launchedFor returns the UID of the VMI that the virt-launcher pod is for, "" if
// it is none. The VMI must control the pod: KubeVirt counts the pods of a VMI by that
// (VMIActivePodsCount in its pkg/controller), and labels alone are easily forged.
func launchedFor(pod *corev1.Pod) types.UID {
	uid := controllerOf(pod, kubevirtv1.VirtualMachineInstanceGroupVersionKind.GroupKind())
	if uid != types.UID(pod.Labels[kubevirtv1.CreatedByLabel]) {
		return ""
	}
	return uid
}

// ownerPod returns the UID of the pod that controls object, "" if none does.
func ownerPod(object metav1.Object) types.UID {
	return controllerOf(object, schema.GroupKind{Kind: "Pod"})
}

// controllerOf returns the UID of the object of that kind that controls object, "" if none
// does. The version of its API is irrelevant.
func controllerOf(object metav1.Object, kind schema.GroupKind) types.UID {
	owner := metav1.GetControllerOfNoCopy(object)
	if owner == nil || owner.Kind != kind.Kind {
		return ""
	}
	if group, err := schema.ParseGroupVersion(owner.APIVersion); err != nil || group.Group != kind.Group {
		return ""
	}
	return owner.UID
}

// charged returns those of pods that quota charges for more than their object.
func (m *machine) charged(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return quota.Ended(pod, m.Now) })
}

// vmim returns the VMIM of this machine with that UID, nil if there is none.
func (m *machine) vmim(uid types.UID) *kubevirtv1.VirtualMachineInstanceMigration {
	if vmim := m.vmims[uid]; vmim != nil && vmim.Spec.VMIName == m.vmi.Name {
		return vmim
	}
	return nil
}

// jobOf returns the UID of the migration that pod was created for as the target.
func jobOf(pod *corev1.Pod) types.UID {
	return types.UID(pod.Labels[kubevirtv1.MigrationJobLabel])
}

func named(pods []*corev1.Pod, name string) *corev1.Pod {
	for _, pod := range pods {
		if name != "" && pod.Name == name {
			return pod
		}
	}
	return nil
}
