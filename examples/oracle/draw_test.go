package oracle_test

import (
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"gopkg.in/inf.v0"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

var resourceNames = []corev1.ResourceName{
	"cpu", "memory", "cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "hugepages-1Gi", "hugepages-", "hugepages-x/y",
	"nvidia.com/gpu", "devices.kubevirt.io/kvm", "deviceclass.resource.kubernetes.io/gpu", "deviceclass.resource.kubernetes.io/",
	"storage", "pods", "count/pods", "requests.cpu", "limits.memory", "requests.nvidia.com/gpu", "requests.hugepages-2Mi",
	"kubernetes.io/batch", "example.kubernetes.io/x", "attachable-volumes-csi", "Upper.example.com/x", "example.com/not a name",
	"example.com/a/b", "/x", "x/", "", "-", corev1.ResourceName("example.com/" + strings.Repeat("n", 63)),
	corev1.ResourceName("example.com/" + strings.Repeat("n", 64)), corev1.ResourceName(longDomain(244) + "/x"), corev1.ResourceName(longDomain(245) + "/x"),
}

// longDomain returns a DNS name of n bytes.
func longDomain(n int) string {
	return strings.Repeat("d", n-4*(n/5)) + strings.Repeat(".ddd", n/5)
}

var quantities = []string{
	"0", "1", "-1", "1n", "-1n", "0.1n", "1u", "100m", "1015m", "1500m", "0.5", "0.0001", "1.5Gi", "0.3Ki", "-0.5Mi", "4952Mi", "2773714688",
	"9223372036854775807", "-9223372036854775808", "9223372036854775808", "12345678901234567890", "-12345678901234567890", "100E", "-100E",
	"8Ei", "7Ei", "1e3", "1E2", "1.234e-3", "1e20", "1e-9", "9007199254740993", "999999999999999999", "123456789.987654321",
}

func drawQuantity(t *rapid.T) resource.Quantity {
	switch rapid.IntRange(0, 9).Draw(t, "kind of quantity") {
	case 0:
		return resource.Quantity{}
	case 1:
		format := rapid.SampledFrom([]resource.Format{resource.DecimalSI, resource.BinarySI, resource.DecimalExponent}).Draw(t, "format")
		value := rapid.Int64().Draw(t, "value")
		scale := rapid.Int32Range(-9, 9).Draw(t, "scale")
		q := resource.NewScaledQuantity(value, resource.Scale(scale))
		q.Format = format
		return *q
	case 2:
		value := inf.NewDec(rapid.Int64().Draw(t, "value"), inf.Scale(rapid.Int32Range(-20, 9).Draw(t, "scale")))
		return *resource.NewDecimalQuantity(*value, resource.DecimalSI)
	case 3, 4, 5:
		number := strconv.Itoa(rapid.IntRange(-100000, 100000).Draw(t, "number"))
		suffix := rapid.SampledFrom([]string{"", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e2", "E-2", ".25", ".125Gi", ".0000000001"}).Draw(t, "suffix")
		return resource.MustParse(number + suffix)
	default:
		return resource.MustParse(rapid.SampledFrom(quantities).Draw(t, "quantity"))
	}
}

func drawList(t *rapid.T) corev1.ResourceList {
	n := rapid.IntRange(-1, 4).Draw(t, "resources")
	if n < 0 {
		return nil
	}
	list := corev1.ResourceList{}
	for range n {
		list[rapid.SampledFrom(resourceNames).Draw(t, "resource")] = drawQuantity(t)
	}
	return list
}

func drawResources(t *rapid.T) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: drawList(t), Limits: drawList(t)}
}

// maybe returns nil, or a pointer to what draw returns, once in each of odds.
func maybe[T any](t *rapid.T, odds int, draw func(*rapid.T) T) *T {
	if rapid.IntRange(1, odds).Draw(t, "there") != odds {
		return nil
	}
	v := draw(t)
	return &v
}

// several returns up to most of what draw returns.
func several[T any](t *rapid.T, most int, draw func(*rapid.T) T) []T {
	var all []T
	for range rapid.IntRange(0, most).Draw(t, "several") {
		all = append(all, draw(t))
	}
	return all
}

// of returns a draw of one of values.
func of[T any](values ...T) func(*rapid.T) T {
	return func(t *rapid.T) T { return rapid.SampledFrom(values).Draw(t, "one") }
}

// Few names, so that statuses find their containers and some names come twice.
var (
	containerName = of("a", "b", "c")
	initName      = of("a", "i", "j", "k")
	className     = of("", "low", "high", "high", "Not a Label!")
)

func drawContainer(t *rapid.T) corev1.Container {
	return corev1.Container{Name: containerName(t), Resources: drawResources(t)}
}

func drawInitContainer(t *rapid.T) corev1.Container {
	policy := maybe(t, 2, of(corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicy("")))
	return corev1.Container{Name: initName(t), RestartPolicy: policy, Resources: drawResources(t)}
}

func drawContainerStatus(t *rapid.T) corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Name:               of("a", "b", "c", "i", "j", "k", "")(t),
		Resources:          maybe(t, 2, drawResources),
		AllocatedResources: drawList(t),
	}
}

func drawCondition(t *rapid.T) corev1.PodCondition {
	return corev1.PodCondition{
		Type:   of(corev1.PodResizePending, corev1.PodResizePending, corev1.PodResizeInProgress, corev1.PodReady)(t),
		Status: of(corev1.ConditionTrue, corev1.ConditionFalse)(t),
		Reason: of(corev1.PodReasonInfeasible, corev1.PodReasonDeferred, "")(t),
	}
}

func drawTerm(t *rapid.T) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{
		Namespaces:        several(t, 1, of("other")),
		NamespaceSelector: maybe(t, 4, of(metav1.LabelSelector{})),
	}
}

func drawWeightedTerm(t *rapid.T) corev1.WeightedPodAffinityTerm {
	return corev1.WeightedPodAffinityTerm{Weight: 1, PodAffinityTerm: drawTerm(t)}
}

func drawAffinity(t *rapid.T) corev1.Affinity {
	affinity := func(t *rapid.T) corev1.PodAffinity {
		return corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution:  several(t, 2, drawTerm),
			PreferredDuringSchedulingIgnoredDuringExecution: several(t, 2, drawWeightedTerm),
		}
	}
	anti := func(t *rapid.T) corev1.PodAntiAffinity { return corev1.PodAntiAffinity(affinity(t)) }
	return corev1.Affinity{PodAffinity: maybe(t, 2, affinity), PodAntiAffinity: maybe(t, 2, anti)}
}

// deletions are the moments at which pods are deleted.
var deletion = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func drawPod(t *rapid.T) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			DeletionTimestamp:          maybe(t, 3, of(metav1.NewTime(deletion))),
			DeletionGracePeriodSeconds: maybe(t, 2, of[int64](0, 30, 30, -30, math.MaxInt64)),
		},
		Spec: corev1.PodSpec{
			Containers:            several(t, 3, drawContainer),
			InitContainers:        several(t, 4, drawInitContainer),
			Resources:             maybe(t, 3, drawResources),
			Overhead:              drawOverhead(t),
			ActiveDeadlineSeconds: maybe(t, 2, of[int64](-1, 0, 1)),
			PriorityClassName:     className(t),
			Affinity:              maybe(t, 3, drawAffinity),
		},
		Status: corev1.PodStatus{
			Phase:                 of(corev1.PodPhase(""), corev1.PodPending, corev1.PodRunning, corev1.PodRunning, corev1.PodUnknown, corev1.PodSucceeded, corev1.PodFailed)(t),
			QOSClass:              of("", "", corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed, "Other")(t),
			Conditions:            several(t, 2, drawCondition),
			ContainerStatuses:     several(t, 3, drawContainerStatus),
			InitContainerStatuses: several(t, 3, drawContainerStatus),
			Resources:             maybe(t, 4, drawResources),
			AllocatedResources:    drawOverhead(t),
		},
	}
}

// atRest returns pod without what its status says of the resources of containers, so that no
// resize is in progress.
func atRest(pod *corev1.Pod) *corev1.Pod {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			statuses[i].Resources, statuses[i].AllocatedResources = nil, nil
		}
	}
	pod.Status.Conditions = nil
	return pod
}

// reportByKubelet gives pod a status as a kubelet writes it: one for a container, with both
// kinds of resources or none, which differ from spec only where a resize is possible.
func reportByKubelet(t *rapid.T, pod *corev1.Pod) {
	pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses = nil, nil
	reported := map[string]bool{"": true}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			reported[c.Name] = true
		}
	}
	report := func(containers []corev1.Container) (statuses []corev1.ContainerStatus) {
		for _, c := range containers {
			if status := drawContainerStatus(t); !reported[c.Name] && status.Resources != nil {
				status.Name, reported[c.Name] = c.Name, true
				statuses = append(statuses, status)
			}
		}
		return statuses
	}
	pod.Status.ContainerStatuses = report(pod.Spec.Containers)
	pod.Status.InitContainerStatuses = report(pod.Spec.InitContainers)
}

// dropNegative drops the negative amounts of pod, which the API server refuses.
func dropNegative(pod *corev1.Pod) {
	drop := func(lists ...corev1.ResourceList) {
		for _, list := range lists {
			maps.DeleteFunc(list, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.Sign() < 0 })
		}
	}
	drop(pod.Spec.Overhead)
	if level := pod.Spec.Resources; level != nil {
		drop(level.Requests, level.Limits)
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			drop(c.Resources.Requests, c.Resources.Limits)
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, status := range statuses {
			drop(status.AllocatedResources)
			if status.Resources != nil {
				drop(status.Resources.Requests, status.Resources.Limits)
			}
		}
	}
}

func drawOverhead(t *rapid.T) corev1.ResourceList {
	if rapid.IntRange(0, 2).Draw(t, "overhead") > 0 {
		return nil
	}
	return drawList(t)
}

// drawNow returns a time close to one that matters for pod.
func drawNow(t *rapid.T, pod *corev1.Pod) time.Time {
	now := deletion
	if seconds := pod.DeletionGracePeriodSeconds; seconds != nil && rapid.Bool().Draw(t, "after the grace period") {
		now = now.Add(time.Duration(*seconds) * time.Second)
	}
	return now.Add(of(0, 0, 1, -1, time.Second, -time.Second, time.Hour)(t))
}

func drawClaim(t *rapid.T) *corev1.PersistentVolumeClaim {
	storage := func(t *rapid.T) corev1.ResourceList {
		list := drawList(t)
		if list != nil && rapid.Bool().Draw(t, "storage") {
			list[corev1.ResourceStorage] = drawQuantity(t)
		}
		return list
	}
	class := of("", "gold", "silver")
	pvc := &corev1.PersistentVolumeClaim{
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName:          maybe(t, 2, class),
			Resources:                 corev1.VolumeResourceRequirements{Requests: storage(t), Limits: storage(t)},
			VolumeAttributesClassName: maybe(t, 2, className),
		},
		Status: corev1.PersistentVolumeClaimStatus{
			AllocatedResources:               storage(t),
			Capacity:                         storage(t),
			CurrentVolumeAttributesClassName: maybe(t, 2, className),
			ModifyVolumeStatus: maybe(t, 3, func(t *rapid.T) corev1.ModifyVolumeStatus {
				return corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: className(t)}
			}),
		},
	}
	if annotation := maybe(t, 3, class); annotation != nil {
		pvc.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: *annotation}
	}
	return pvc
}

func drawDevices(t *rapid.T) (class string, mode resourcev1.DeviceAllocationMode, count int64) {
	class = of("gpu", "nic", "plain", "plain", "")(t)
	mode = of(resourcev1.DeviceAllocationModeExactCount, resourcev1.DeviceAllocationModeExactCount, resourcev1.DeviceAllocationModeAll, "Half", "")(t)
	return class, mode, of[int64](0, 1, 2, 31, 33, math.MaxInt64)(t) // the API server refuses negative ones
}

func drawDeviceRequest(t *rapid.T) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{
		Exactly: maybe(t, 2, func(t *rapid.T) (r resourcev1.ExactDeviceRequest) {
			r.DeviceClassName, r.AllocationMode, r.Count = drawDevices(t)
			return r
		}),
		FirstAvailable: several(t, 3, func(t *rapid.T) (r resourcev1.DeviceSubRequest) {
			r.DeviceClassName, r.AllocationMode, r.Count = drawDevices(t)
			return r
		}),
	}
}

func drawResourceClaim(t *rapid.T) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: several(t, 3, drawDeviceRequest)}}}
}

var drawScope = of(
	corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
	corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
	corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	corev1.ResourceQuotaScopeVolumeAttributesClass, corev1.ResourceQuotaScopeVolumeAttributesClass,
	corev1.ResourceQuotaScope("Unknown"), corev1.ResourceQuotaScope("not a label!"), corev1.ResourceQuotaScope(""),
)

func drawRequirement(t *rapid.T) corev1.ScopedResourceSelectorRequirement {
	return corev1.ScopedResourceSelectorRequirement{
		ScopeName: drawScope(t),
		Operator: of(corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn, corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist,
			corev1.ScopeSelectorOperator(""), corev1.ScopeSelectorOperator("in"), corev1.ScopeSelectorOperator("Gt"))(t),
		Values: several(t, 2, of("low", "high", "other", "", "7", "Not a Label!", strings.Repeat("v", 64))),
	}
}

func drawSelector(t *rapid.T) corev1.ScopeSelector {
	return corev1.ScopeSelector{MatchExpressions: several(t, 2, drawRequirement)}
}

func drawQuota(t *rapid.T) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{
		Scopes:        several(t, 1, drawScope),
		ScopeSelector: maybe(t, 2, drawSelector),
	}}
}

func isScoped(rq *corev1.ResourceQuota) bool {
	return len(rq.Spec.Scopes) > 0 || rq.Spec.ScopeSelector != nil && len(rq.Spec.ScopeSelector.MatchExpressions) > 0
}
