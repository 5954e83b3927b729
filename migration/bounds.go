package migration

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

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
