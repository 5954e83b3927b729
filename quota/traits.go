package quota

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Traits are what the scopes of a ResourceQuota ask of an object that it charges.
// They decide which scoped quotas charge it, without the object. The zero value
// is an ordinary pod: neither terminating nor best-effort, of no priority class. As JSON they
// are a part of the entries of ledger/configmap.
type Traits struct {
	// Terminating: the pod has an active deadline (spec.activeDeadlineSeconds), deleted or not.
	Terminating bool `json:"terminating,omitzero"`
	// BestEffort: the pod's quality-of-service class is BestEffort.
	BestEffort bool `json:"bestEffort,omitzero"`
	// PriorityClass is the pod's priority class; empty: none.
	PriorityClass string `json:"priorityClass,omitzero"`
	// CrossNamespacePodAffinity: the pod has an affinity or anti-affinity term that
	// names namespaces or selects them.
	CrossNamespacePodAffinity bool `json:"crossNamespacePodAffinity,omitzero"`
	// Claim: the object is a PersistentVolumeClaim, not a pod. Only then the volume
	// attributes classes count.
	Claim bool `json:"claim,omitzero"`
	// VolumeAttributesClass is the one that the claim's spec asks for, Current... the one that
	// its volume has, and Target... the one that the volume is being changed to; empty: none.
	// A quota that selects any of them charges the claim.
	VolumeAttributesClass        string `json:"volumeAttributesClass,omitzero"`
	CurrentVolumeAttributesClass string `json:"currentVolumeAttributesClass,omitzero"`
	TargetVolumeAttributesClass  string `json:"targetVolumeAttributesClass,omitzero"`
	// ResourceClaim: the object is a ResourceClaim, which no scope selects.
	ResourceClaim bool `json:"resourceClaim,omitzero"`
}

// TraitsOf returns the traits of pod; of nil, the zero Traits.
func TraitsOf(pod *corev1.Pod) Traits {
	if pod == nil {
		return Traits{}
	}
	deadline := pod.Spec.ActiveDeadlineSeconds
	return Traits{
		Terminating:               deadline != nil && *deadline >= 0,
		BestEffort:                isBestEffort(pod),
		PriorityClass:             pod.Spec.PriorityClassName,
		CrossNamespacePodAffinity: crossesNamespaces(pod.Spec.Affinity),
	}
}

// isBestEffort reports whether the quality-of-service class of pod is BestEffort.
// What status says goes before what spec would give, as in Kubernetes (GetPodQOS);
// pod-level resources replace those of the containers. Up to v1.36 empty ones did too.
func isBestEffort(pod *corev1.Pod) bool {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass == corev1.PodQOSBestEffort
	}
	if level := pod.Spec.Resources; resourcehelper.IsPodLevelResourcesSet(pod) {
		return !asksForCompute(level.Requests) && !asksForCompute(level.Limits)
	}
	asks := func(c corev1.Container) bool {
		return asksForCompute(c.Resources.Requests) || asksForCompute(c.Resources.Limits)
	}
	return !slices.ContainsFunc(pod.Spec.Containers, asks) && !slices.ContainsFunc(pod.Spec.InitContainers, asks)
}

// asksForCompute reports whether list has any cpu or memory.
func asksForCompute(list corev1.ResourceList) bool {
	cpu, memory := list[corev1.ResourceCPU], list[corev1.ResourceMemory]
	return cpu.Sign() > 0 || memory.Sign() > 0
}

// crossesNamespaces reports whether a term of affinity looks at pods of other
// namespaces than the pod's own.
func crossesNamespaces(affinity *corev1.Affinity) bool {
	if affinity == nil {
		return false
	}
	crosses := func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	some := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) bool {
		return slices.ContainsFunc(required, crosses) ||
			slices.ContainsFunc(preferred, func(t corev1.WeightedPodAffinityTerm) bool { return crosses(t.PodAffinityTerm) })
	}
	with, apart := affinity.PodAffinity, affinity.PodAntiAffinity
	return with != nil && some(with.RequiredDuringSchedulingIgnoredDuringExecution, with.PreferredDuringSchedulingIgnoredDuringExecution) ||
		apart != nil && some(apart.RequiredDuringSchedulingIgnoredDuringExecution, apart.PreferredDuringSchedulingIgnoredDuringExecution)
}

// TraitsOfClaim returns the traits of pvc; of nil, those of a claim that refers to no
// volume attributes class.
func TraitsOfClaim(pvc *corev1.PersistentVolumeClaim) Traits {
	t := Traits{Claim: true}
	if pvc == nil {
		return t
	}
	if class := pvc.Spec.VolumeAttributesClassName; class != nil {
		t.VolumeAttributesClass = *class
	}
	if class := pvc.Status.CurrentVolumeAttributesClassName; class != nil {
		t.CurrentVolumeAttributesClass = *class
	}
	if change := pvc.Status.ModifyVolumeStatus; change != nil {
		t.TargetVolumeAttributesClass = change.TargetVolumeAttributesClassName
	}
	return t
}

// SelectedBy reports whether the scopes of rq, all of spec.scopes and of spec.scopeSelector,
// select an object with these traits, whatever rq limits. Without scopes every object is
// selected; nil selects nothing.
//
// It answers as Kubernetes' evaluators do (k8s.io/apiserver/pkg/quota/v1/generic and
// k8s.io/kubernetes/pkg/quota/v1/evaluator/core, v1.37). The operator counts for the
// scopes PriorityClass and VolumeAttributesClass only. NotIn and DoesNotExist select
// an object without a class too. An unknown scope or operator, and values that are missing,
// superfluous or malformed select nothing; but Exists disregards its values.
func (t Traits) SelectedBy(rq *corev1.ResourceQuota) bool {
	if rq == nil {
		return false
	}
	for _, scope := range rq.Spec.Scopes {
		if !t.meet(corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}) {
			return false
		}
	}
	if rq.Spec.ScopeSelector == nil {
		return true
	}
	for _, requirement := range rq.Spec.ScopeSelector.MatchExpressions {
		if !t.meet(requirement) {
			return false
		}
	}
	return true
}

// meet reports whether an object with these traits meets one requirement.
func (t Traits) meet(r corev1.ScopedResourceSelectorRequirement) bool {
	if t.ResourceClaim {
		return false
	}
	if t.Claim {
		return r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass &&
			selectsClass(r, t.VolumeAttributesClass, t.CurrentVolumeAttributesClass, t.TargetVolumeAttributesClass)
	}
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return t.Terminating
	case corev1.ResourceQuotaScopeNotTerminating:
		return !t.Terminating
	case corev1.ResourceQuotaScopeBestEffort:
		return t.BestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !t.BestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return selectsClass(r, t.PriorityClass)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return t.CrossNamespacePodAffinity
	default:
		return false
	}
}

// selectsClass reports whether r selects an object that refers to classes; the empty
// ones do not count.
func selectsClass(r corev1.ScopedResourceSelectorRequirement, classes ...string) bool {
	classes = slices.DeleteFunc(classes, func(class string) bool { return class == "" })
	if r.Operator == corev1.ScopeSelectorOpExists {
		return len(classes) > 0
	}
	selector, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: string(r.ScopeName), Operator: metav1.LabelSelectorOperator(r.Operator), Values: r.Values},
	}})
	if err != nil {
		return false
	}
	if len(classes) == 0 {
		return selector.Matches(labels.Set{})
	}
	return slices.ContainsFunc(classes, func(class string) bool {
		return selector.Matches(labels.Set{string(r.ScopeName): class})
	})
}

// Selects reports whether the scopes of rq select pod, as [Traits.SelectedBy] says.
// A nil rq selects nothing, and a nil pod is never selected.
func Selects(rq *corev1.ResourceQuota, pod *corev1.Pod) bool {
	return pod != nil && TraitsOf(pod).SelectedBy(rq)
}
