package migration

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	if u, ok := object.(*unstructured.Unstructured); ok {
		object = prune(u)
	}
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
		return &resourcev1.DeviceClass{ObjectMeta: trimMeta(o.ObjectMeta), Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: o.Spec.ExtendedResourceName}}, nil
	case *corev1.LimitRange:
		return trimLimitRange(o), nil
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

func trimMeta(from metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: from.Namespace, Name: from.Name, UID: from.UID, ResourceVersion: from.ResourceVersion,
		Labels: from.Labels, OwnerReferences: from.OwnerReferences,
		CreationTimestamp: from.CreationTimestamp, DeletionTimestamp: from.DeletionTimestamp, DeletionGracePeriodSeconds: from.DeletionGracePeriodSeconds,
	}
}

// trimPod keeps what quota charges pod for, and whose it is.
func trimPod(pod *corev1.Pod) *corev1.Pod {
	trimmed := &corev1.Pod{ObjectMeta: trimMeta(pod.ObjectMeta)}
	trimmed.Annotations = trimAnnotations(pod.Annotations, kubevirtv1.MemoryOverheadAnnotationBytes)
	spec := &pod.Spec
	trimmed.Spec = corev1.PodSpec{
		NodeName: spec.NodeName, ActiveDeadlineSeconds: spec.ActiveDeadlineSeconds, PriorityClassName: spec.PriorityClassName,
		Affinity: spec.Affinity, Overhead: spec.Overhead, Resources: spec.Resources,
		Containers: trimContainers(spec.Containers), InitContainers: trimContainers(spec.InitContainers),
		ResourceClaims: spec.ResourceClaims,
	}
	// Newer versions of the API have more fields of a resize, so here it is named what is
	// not kept.
	trimmed.Status = pod.Status
	status := &trimmed.Status
	status.Conditions = trimConditions(status.Conditions)
	status.ContainerStatuses, status.InitContainerStatuses = trimStatuses(status.ContainerStatuses), trimStatuses(status.InitContainerStatuses)
	status.EphemeralContainerStatuses, status.ResourceClaimStatuses = nil, nil
	status.PodIPs, status.HostIPs = nil, nil
	return trimmed
}

func trimContainers(containers []corev1.Container) []corev1.Container {
	trimmed := make([]corev1.Container, len(containers))
	for i := range containers {
		trimmed[i] = corev1.Container{Name: containers[i].Name, Resources: containers[i].Resources, RestartPolicy: containers[i].RestartPolicy}
	}
	return trimmed
}

// trimStatuses keeps what quota reads of a resize in place.
func trimStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var trimmed []corev1.ContainerStatus
	for i := range statuses {
		if s := &statuses[i]; s.Resources != nil || s.AllocatedResources != nil {
			trimmed = append(trimmed, corev1.ContainerStatus{Name: s.Name, Resources: s.Resources, AllocatedResources: s.AllocatedResources})
		}
	}
	return trimmed
}

// trimConditions keeps what is said of a resize, and why a pod is not scheduled.
func trimConditions(conditions []corev1.PodCondition) []corev1.PodCondition {
	var kept []corev1.PodCondition
	for _, c := range conditions {
		if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress || unschedulable(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// trimInstance keeps what the guest asks for, and what is said of its migration.
func trimInstance(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstance {
	trimmed := &kubevirtv1.VirtualMachineInstance{TypeMeta: vmi.TypeMeta, ObjectMeta: trimMeta(vmi.ObjectMeta)}
	trimmed.Labels = nil
	from, domain := &vmi.Spec.Domain, &trimmed.Spec.Domain
	domain.Resources, domain.CPU, domain.Memory, domain.Firmware, domain.IOThreads = from.Resources, from.CPU, from.Memory, from.Firmware, from.IOThreads
	domain.Devices.TPM = from.Devices.TPM
	status := &vmi.Status
	trimmed.Status = kubevirtv1.VirtualMachineInstanceStatus{
		Phase: status.Phase, NodeName: status.NodeName, MigrationState: status.MigrationState, ActivePods: status.ActivePods,
		Conditions: status.Conditions, Memory: status.Memory, CurrentCPUTopology: status.CurrentCPUTopology,
		VolumeStatus: status.VolumeStatus, ChangedBlockTracking: status.ChangedBlockTracking,
	}
	return trimmed
}

// trimMigration keeps of a migration that is over which one it was, who made it, and how and
// when it ended: KubeVirt keeps the last five of each VMI.
func trimMigration(vmim *kubevirtv1.VirtualMachineInstanceMigration) *kubevirtv1.VirtualMachineInstanceMigration {
	vmim.ManagedFields = nil
	vmim.Annotations = trimAnnotations(vmim.Annotations, kubevirtv1.EvacuationMigrationAnnotation, kubevirtv1.WorkloadUpdateMigrationAnnotation)
	if !vmim.IsFinal() {
		return vmim
	}
	trimmed := &kubevirtv1.VirtualMachineInstanceMigration{TypeMeta: vmim.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: vmim.Namespace, Name: vmim.Name, UID: vmim.UID, ResourceVersion: vmim.ResourceVersion,
		CreationTimestamp: vmim.CreationTimestamp, DeletionTimestamp: vmim.DeletionTimestamp, Annotations: vmim.Annotations,
	}}
	trimmed.Spec = vmim.Spec
	trimmed.Status.Phase = vmim.Status.Phase
	if state := vmim.Status.MigrationState; state != nil {
		trimmed.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
			EndTimestamp: state.EndTimestamp, SourcePod: state.SourcePod, TargetPod: state.TargetPod,
			SourcePersistentStatePVCName: state.SourcePersistentStatePVCName, TargetPersistentStatePVCName: state.TargetPersistentStatePVCName,
		}
	}
	for _, transition := range vmim.Status.PhaseTransitionTimestamps {
		if transition.Phase == vmim.Status.Phase {
			trimmed.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{transition}
			break
		}
	}
	return trimmed
}

// prune returns a migration that is over without what trimMigration drops, before it costs
// anything to make it a typed object; and whatever else unchanged.
func prune(u *unstructured.Unstructured) *unstructured.Unstructured {
	status, ok := u.Object["status"].(map[string]any)
	if !ok || u.GetKind() != "VirtualMachineInstanceMigration" {
		return u
	}
	switch status["phase"] {
	case string(kubevirtv1.MigrationSucceeded), string(kubevirtv1.MigrationFailed):
	default:
		return u
	}
	pruned := maps.Clone(u.Object)
	kept := pick(status, "phase", "migrationState", "phaseTransitionTimestamps")
	if state, ok := status["migrationState"].(map[string]any); ok {
		kept["migrationState"] = pick(state,
			"endTimestamp", "sourcePod", "targetPod", "sourcePersistentStatePVCName", "targetPersistentStatePVCName")
	}
	pruned["status"] = kept
	if meta, ok := u.Object["metadata"].(map[string]any); ok {
		pruned["metadata"] = pick(meta, "namespace", "name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "annotations")
	}
	return &unstructured.Unstructured{Object: pruned}
}

// pick returns the fields of from with these names.
func pick(from map[string]any, names ...string) map[string]any {
	picked := map[string]any{}
	for _, name := range names {
		if value, ok := from[name]; ok {
			picked[name] = value
		}
	}
	return picked
}

// trimLimitRange keeps the defaults of containers.
func trimLimitRange(limitRange *corev1.LimitRange) *corev1.LimitRange {
	trimmed := &corev1.LimitRange{ObjectMeta: trimMeta(limitRange.ObjectMeta)}
	trimmed.Labels, trimmed.OwnerReferences = nil, nil
	for _, item := range limitRange.Spec.Limits {
		if item.Type == corev1.LimitTypeContainer {
			trimmed.Spec.Limits = append(trimmed.Spec.Limits, corev1.LimitRangeItem{Type: item.Type, Default: item.Default, DefaultRequest: item.DefaultRequest})
		}
	}
	return trimmed
}
