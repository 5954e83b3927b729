package quota

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resized returns containers of pod with what each is charged for in the middle of a resize
// in place: the greatest of what spec asks for and what status says, or what status says
// alone if the node cannot do the resize. Without a resize the result is containers itself.
func resized(pod *corev1.Pod, containers []corev1.Container) []corev1.Container {
	infeasible := resourcehelper.IsPodResizeInfeasible(pod)
	result, copied := containers, false
	for i := range containers {
		status := statusOf(pod, containers[i].Name)
		if status == nil {
			continue
		}
		var spec, actual corev1.ResourceRequirements
		if status.Resources != nil {
			actual = *status.Resources
		}
		if !infeasible || status.Resources == nil {
			spec = containers[i].Resources
		}
		requests, more := greatest(spec.Requests, actual.Requests, status.AllocatedResources)
		limits, moreLimits := greatest(spec.Limits, actual.Limits)
		if !more && !moreLimits && !infeasible {
			continue
		}
		if !copied {
			result, copied = slices.Clone(containers), true
		}
		result[i].Resources.Requests, result[i].Resources.Limits = requests, limits
	}
	return result
}

// statusOf returns the status of the container with that name, nil if there is none.
func statusOf(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == name {
				return &statuses[i]
			}
		}
	}
	return nil
}

// greatest returns the greatest amount of each resource in lists, and whether that is more
// than the first list says. If not, the result is that list itself.
func greatest(first corev1.ResourceList, others ...corev1.ResourceList) (result corev1.ResourceList, more bool) {
	result = first
	for _, list := range others {
		for name, q := range list {
			if known, ok := result[name]; ok && q.Cmp(known) <= 0 {
				continue
			}
			if !more {
				result, more = maps.Clone(first), true
				if result == nil {
					result = corev1.ResourceList{}
				}
			}
			result[name] = q
		}
	}
	return result, more
}
