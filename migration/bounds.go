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

// calculable reports whether q has an amount that one can calculate with.
func calculable(q resource.Quantity) bool {
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

// calculableLists reports whether all amounts of lists are calculable.
func calculableLists(lists []corev1.ResourceList) bool {
	for _, list := range lists {
		for _, q := range list {
			if !calculable(q) {
				return false
			}
		}
	}
	return true
}

// dropOthers drops from lists what is not calculable.
func dropOthers(lists []corev1.ResourceList) {
	for _, list := range lists {
		maps.DeleteFunc(list, func(_ corev1.ResourceName, q resource.Quantity) bool { return !calculable(q) })
	}
}

// calculablePod returns pod without the amounts that are not calculable, if it has any.
func calculablePod(pod *corev1.Pod) *corev1.Pod {
	if calculableLists(amountsOfPod(pod)) {
		return pod
	}
	pod = pod.DeepCopy()
	dropOthers(amountsOfPod(pod))
	return pod
}

func amountsOfPod(pod *corev1.Pod) []corev1.ResourceList {
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
}

// calculableVMI returns vmi without the amounts that are not calculable, if it has any.
func calculableVMI(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
	amounts := func() []corev1.ResourceList {
		return []corev1.ResourceList{vmi.Spec.Domain.Resources.Requests, vmi.Spec.Domain.Resources.Limits}
	}
	memory := vmi.Spec.Domain.Memory
	guest := memory == nil || memory.Guest == nil || calculable(*memory.Guest)
	if guest && calculableLists(amounts()) {
		return vmi
	}
	vmi = vmi.DeepCopy()
	dropOthers(amounts())
	if !guest {
		vmi.Spec.Domain.Memory.Guest = nil
	}
	return vmi
}

// calculableClaim returns pvc without the amounts that are not calculable, if it has any.
func calculableClaim(pvc *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	if calculableLists([]corev1.ResourceList{pvc.Spec.Resources.Requests}) {
		return pvc
	}
	pvc = pvc.DeepCopy()
	dropOthers([]corev1.ResourceList{pvc.Spec.Resources.Requests})
	return pvc
}
