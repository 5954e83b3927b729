package migration

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
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

// maxDigits is how many digits an amount may have before the decimal point, and how many zeros
// after it. The API server takes any exponent: comparing 1e9999999 takes a second.
const maxDigits = 30

// isCalculable reports whether q has an amount that one can calculate with.
func isCalculable(q resource.Quantity) bool {
	if q.Sign() != 0 { // 0e9999999 is not calculable either
		if _, ok := q.AsInt64(); ok {
			return true
		}
	}
	dec := q.AsDec() // q is a copy
	exponent := -int64(dec.Scale())
	digits := int64(dec.UnscaledBig().BitLen())*30103/100000 + 1
	return exponent >= -maxDigits && digits+exponent <= maxDigits+1 && digits <= 2*maxDigits
}

// calculable returns object without the amounts that are not calculable, if it has any; lists
// returns the amounts of an object.
func calculable[T interface{ DeepCopy() T }](object T, lists func(T) []corev1.ResourceList) T {
	for _, list := range lists(object) {
		for _, q := range list {
			if !isCalculable(q) {
				object = object.DeepCopy()
				dropOthers(lists(object)...)
				return object
			}
		}
	}
	return object
}

// dropOthers drops from lists what is not calculable.
func dropOthers(lists ...corev1.ResourceList) {
	for _, list := range lists {
		maps.DeleteFunc(list, func(_ corev1.ResourceName, q resource.Quantity) bool { return !isCalculable(q) })
	}
}

func calculablePod(pod *corev1.Pod) *corev1.Pod {
	return calculable(pod, func(pod *corev1.Pod) []corev1.ResourceList {
		lists := []corev1.ResourceList{pod.Spec.Overhead}
		if r := pod.Spec.Resources; r != nil {
			lists = append(lists, r.Requests, r.Limits)
		}
		for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range containers {
				lists = append(lists, containers[i].Resources.Requests, containers[i].Resources.Limits)
			}
		}
		return lists
	})
}

func calculableVMI(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
	vmi = calculable(vmi, func(vmi *kubevirtv1.VirtualMachineInstance) []corev1.ResourceList {
		return []corev1.ResourceList{vmi.Spec.Domain.Resources.Requests, vmi.Spec.Domain.Resources.Limits}
	})
	if memory := vmi.Spec.Domain.Memory; memory != nil && memory.Guest != nil && !isCalculable(*memory.Guest) {
		vmi = vmi.DeepCopy()
		vmi.Spec.Domain.Memory.Guest = nil
	}
	return vmi
}

func calculableClaim(pvc *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	return calculable(pvc, func(pvc *corev1.PersistentVolumeClaim) []corev1.ResourceList {
		return []corev1.ResourceList{pvc.Spec.Resources.Requests}
	})
}
