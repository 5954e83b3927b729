package migration

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
)

var _ cache.TransformFunc = Trim

// SelectPods makes a list or a watch one of the pods that [Snapshot] has a use for: those
// that run virtual machines and attach their volumes.
func SelectPods(options *metav1.ListOptions) {
	options.LabelSelector = kubevirtv1.AppLabel + " in (virt-launcher,hotplug-disk)"
}

// Trim is a transform for the informers behind [Caches] and of ResourceQuotas: objects keep
// what this library reads, which is a fraction of their size. Set it only on informers that
// nobody else reads. Objects of a dynamic informer become typed ones, as by [Typed]; what it
// does not know passes unchanged.
func Trim(object any) (any, error) {
	object, err := Typed(object)
	if err != nil {
		return nil, fmt.Errorf("trim: %w", err)
	}
	switch o := object.(type) {
	case *corev1.Pod:
		return trimPod(o), nil
	case *corev1.PersistentVolumeClaim:
		o.ManagedFields, o.Annotations = nil, trimAnnotations(o.Annotations, corev1.BetaStorageClassAnnotation)
	case *resourcev1.ResourceClaim:
		o.ManagedFields, o.Status = nil, resourcev1.ResourceClaimStatus{}
	case *resourcev1.DeviceClass:
		o.ManagedFields, o.Spec.Selectors, o.Spec.Config = nil, nil, nil
	case *corev1.LimitRange:
		o.ManagedFields, o.Annotations = nil, nil
	case *corev1.ResourceQuota:
		o.ManagedFields = nil
	case *corev1.Event:
		o.ManagedFields, o.Annotations = nil, nil
		if !strings.Contains(o.Message, exceededQuota) {
			o.Message = "" // another failure than by quota
		}
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion,
			Labels: trimAnnotations(o.Labels, kubevirtv1.AutoMemoryLimitsRatioLabel, applier.DisabledAnnotation),
		}}, nil
	case *kubevirtv1.VirtualMachineInstance:
		return trimInstance(o), nil
	case *kubevirtv1.VirtualMachineInstanceMigration:
		return trimMigration(o), nil
	}
	return object, nil
}

// trimAnnotations returns those of from with these names, nil if there are none.
func trimAnnotations(from map[string]string, names ...string) map[string]string {
	var kept map[string]string
	for _, name := range names {
		if value, ok := from[name]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = value
		}
	}
	return kept
}

// trimMeta keeps which object it is, and since when and how long.
func trimMeta(from metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: from.Namespace, Name: from.Name, UID: from.UID, ResourceVersion: from.ResourceVersion,
		CreationTimestamp: from.CreationTimestamp,
		DeletionTimestamp: from.DeletionTimestamp, DeletionGracePeriodSeconds: from.DeletionGracePeriodSeconds,
	}
}

// trimPod keeps what quota charges pod for, and whose it is. Newer versions of the API have more
// fields of a resize, so of the status it is named what is not kept.
func trimPod(pod *corev1.Pod) *corev1.Pod {
	trimmed := &corev1.Pod{ObjectMeta: trimMeta(pod.ObjectMeta), Status: pod.Status}
	trimmed.OwnerReferences = pod.OwnerReferences
	trimmed.Labels = trimAnnotations(pod.Labels,
		kubevirtv1.AppLabel, kubevirtv1.CreatedByLabel, kubevirtv1.MigrationJobLabel)
	trimmed.Annotations = trimAnnotations(pod.Annotations, kubevirtv1.MemoryOverheadAnnotationBytes)
	spec, status := &pod.Spec, &trimmed.Status
	trimmed.Spec = corev1.PodSpec{
		NodeName: spec.NodeName, ActiveDeadlineSeconds: spec.ActiveDeadlineSeconds, PriorityClassName: spec.PriorityClassName,
		Affinity: spec.Affinity, Overhead: spec.Overhead, Resources: spec.Resources, ResourceClaims: spec.ResourceClaims,
		Containers: spec.Containers, InitContainers: spec.InitContainers,
	}
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i, c := range containers {
			containers[i] = corev1.Container{Name: c.Name, Resources: c.Resources, RestartPolicy: c.RestartPolicy}
		}
	}
	status.Conditions = slices.Clone(slices.DeleteFunc(status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type != corev1.PodResizePending && c.Type != corev1.PodResizeInProgress && !unschedulable(c)
	}))
	for _, statuses := range []*[]corev1.ContainerStatus{&status.ContainerStatuses, &status.InitContainerStatuses} {
		var kept []corev1.ContainerStatus
		for _, s := range *statuses {
			if s.Resources != nil || s.AllocatedResources != nil { // a resize in place
				kept = append(kept, corev1.ContainerStatus{
					Name: s.Name, Resources: s.Resources, AllocatedResources: s.AllocatedResources,
				})
			}
		}
		*statuses = kept
	}
	status.EphemeralContainerStatuses, status.ResourceClaimStatuses = nil, nil
	status.PodIP, status.PodIPs, status.HostIP, status.HostIPs, status.StartTime = "", nil, "", nil, nil
	return trimmed
}

// readConditions are those of a VMI that are read.
var readConditions = []kubevirtv1.VirtualMachineInstanceConditionType{
	kubevirtv1.VirtualMachineInstanceIsMigratable,
	kubevirtv1.VirtualMachineInstanceVCPUChange, kubevirtv1.VirtualMachineInstanceMemoryChange,
}

// trimInstance keeps what the guest asks for, and what is said of its migration.
func trimInstance(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
	trimmed := &kubevirtv1.VirtualMachineInstance{ObjectMeta: trimMeta(vmi.ObjectMeta)}
	trimmed.OwnerReferences = vmi.OwnerReferences
	from, domain := &vmi.Spec.Domain, &trimmed.Spec.Domain
	domain.Resources, domain.CPU, domain.Memory = from.Resources, from.CPU, from.Memory
	domain.Firmware, domain.IOThreads = from.Firmware, from.IOThreads
	domain.Devices.TPM = from.Devices.TPM
	status := &vmi.Status
	trimmed.Status = kubevirtv1.VirtualMachineInstanceStatus{
		Phase: status.Phase, NodeName: status.NodeName, MigrationState: trimState(status.MigrationState),
		Memory: status.Memory, CurrentCPUTopology: status.CurrentCPUTopology,
		VolumeStatus: status.VolumeStatus, ChangedBlockTracking: status.ChangedBlockTracking,
	}
	for _, c := range status.Conditions {
		if slices.Contains(readConditions, c.Type) {
			c = kubevirtv1.VirtualMachineInstanceCondition{Type: c.Type, Status: c.Status}
			trimmed.Status.Conditions = append(trimmed.Status.Conditions, c)
		}
	}
	return trimmed
}

// trimState keeps which migration it is, of which objects, and how and when it ended.
func trimState(
	state *kubevirtv1.VirtualMachineInstanceMigrationState,
) *kubevirtv1.VirtualMachineInstanceMigrationState {
	if state == nil {
		return nil
	}
	return &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID: state.MigrationUID,
		EndTimestamp: state.EndTimestamp, Completed: state.Completed, Failed: state.Failed,
		SourcePod: state.SourcePod, TargetPod: state.TargetPod, TargetAttachmentPodUID: state.TargetAttachmentPodUID,
		SourcePersistentStatePVCName: state.SourcePersistentStatePVCName,
		TargetPersistentStatePVCName: state.TargetPersistentStatePVCName,
	}
}

// trimMigration keeps of a migration that is over which one it was, who made it, and how and
// when it ended: KubeVirt keeps the last five of each VMI. It sets the kind, which a typed client
// clears and an event needs.
func trimMigration(vmim *kubevirtv1.VirtualMachineInstanceMigration) *kubevirtv1.VirtualMachineInstanceMigration {
	vmim.SetGroupVersionKind(kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind)
	vmim.ManagedFields = nil
	vmim.Annotations = trimAnnotations(vmim.Annotations,
		kubevirtv1.EvacuationMigrationAnnotation, kubevirtv1.WorkloadUpdateMigrationAnnotation)
	if !vmim.IsFinal() {
		return vmim
	}
	trimmed := &kubevirtv1.VirtualMachineInstanceMigration{
		TypeMeta: vmim.TypeMeta, ObjectMeta: trimMeta(vmim.ObjectMeta), Spec: vmim.Spec,
	}
	trimmed.Annotations = vmim.Annotations
	trimmed.Status.Phase = vmim.Status.Phase
	trimmed.Status.MigrationState = trimState(vmim.Status.MigrationState)
	for i, transition := range vmim.Status.PhaseTransitionTimestamps {
		if transition.Phase == vmim.Status.Phase {
			trimmed.Status.PhaseTransitionTimestamps = slices.Clone(vmim.Status.PhaseTransitionTimestamps[i : i+1])
			break
		}
	}
	return trimmed
}
