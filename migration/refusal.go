package migration

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// refusalReason is FailedCreatePodReason of KubeVirt's pkg/controller, and claimRefusalReason
// that of the event which kube-controller-manager's pkg/controller/resourceclaim records on a pod.
const (
	refusalReason      = "FailedCreate"
	claimRefusalReason = "FailedResourceClaimCreation"
)

// The messages of these events begin so; see parseRefusal.
const (
	podRefusal   = "Error creating pod: "
	claimRefusal = "PodResourceClaim %s: "
)

// exceededQuota is how quota admission begins to say why it refuses a pod.
const exceededQuota = "exceeded quota: "

// refusalTrust is how many times what is expected is believed: events and pods can be forged.
const refusalTrust = 4

// trusted returns the most that is believed where q is expected.
func trusted(q resource.Quantity) resource.Quantity {
	most := q.DeepCopy()
	most.Mul(refusalTrust)
	return most
}

// longestAmount is the longest quantity that is read from a refusal.
const longestAmount = 24

// SelectRefusals makes a list or a watch one of the events that [Snapshot] has a use
// for: failed creations of the pods of virtual machines. It is for the informer behind
// [Caches], as in informers.WithTweakListOptions(migration.SelectRefusals).
func SelectRefusals(options *metav1.ListOptions) {
	options.FieldSelector = "reason=" + refusalReason +
		",involvedObject.kind=" + kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind
}

// selectClaimRefusals does the same for failed creations of the ResourceClaims of pods.
func selectClaimRefusals(options *metav1.ListOptions) {
	options.FieldSelector = "reason=" + claimRefusalReason + ",involvedObject.kind=Pod"
}

// IsRefusal reports whether event is one that [SelectRefusals] selects, or is about a
// ResourceClaim that could not be created for a pod.
func IsRefusal(event *corev1.Event) bool {
	of := event.InvolvedObject.Kind
	return event.Reason == refusalReason && of == kubevirtv1.VirtualMachineInstanceGroupVersionKind.Kind ||
		event.Reason == claimRefusalReason && of == "Pod"
}

// refusalsOf groups the refusals by the object that they are about.
func refusalsOf(events []*corev1.Event) map[types.UID][]*corev1.Event {
	byObject := map[types.UID][]*corev1.Event{}
	for _, event := range oldestFirst(events) {
		if IsRefusal(event) {
			uid := event.InvolvedObject.UID
			byObject[uid] = append(byObject[uid], event)
		}
	}
	return byObject
}

// refusedRequest returns the most that quota was asked for when it refused an object, by the
// events that begin so, of the resources of estimate: no amount is more than refusalTrust times
// the estimate.
func refusedRequest(events []*corev1.Event, begin string, estimate corev1.ResourceList) corev1.ResourceList {
	refused := corev1.ResourceList{}
	for _, event := range events {
		_, amounts := parseRefusal(event.Message, begin)
		for name, asked := range amounts {
			most, known := estimate[name]
			if known && asked.Cmp(trusted(most)) <= 0 && asked.Cmp(refused[name]) > 0 {
				refused[name] = asked
			}
		}
	}
	return refused
}

// refusedBy returns the name of the quota that refused an object last, as the newest of the
// events says that begin so; "" if none does.
func refusedBy(events []*corev1.Event, begin string) string {
	var newest time.Time
	by := ""
	for _, event := range events {
		name, _ := parseRefusal(event.Message, begin)
		if last := lastSeen(event); name != "" && !last.Before(newest) {
			newest, by = last, name
		}
	}
	return by
}

// refusalsOf returns the events that may be about the target pod of vmim.
func (m *machine) refusalsOf(vmim *kubevirtv1.VirtualMachineInstanceMigration) []*corev1.Event {
	return slices.DeleteFunc(slices.Clone(m.refusals[m.vmi.UID]), func(event *corev1.Event) bool {
		return lastSeen(event).Before(vmim.CreationTimestamp.Truncate(time.Second))
	})
}

// lastSeen returns when event happened last, in whole seconds.
func lastSeen(event *corev1.Event) time.Time {
	last := event.CreationTimestamp.Time
	for _, t := range []time.Time{event.EventTime.Time, event.FirstTimestamp.Time, event.LastTimestamp.Time} {
		if t.After(last) {
			last = t
		}
	}
	if event.Series != nil && event.Series.LastObservedTime.After(last) {
		last = event.Series.LastObservedTime.Time
	}
	return last.Truncate(time.Second)
}

// parseRefusal returns the name of the quota that refused a virt-launcher pod or a
// ResourceClaim, and what that asked for, by the words of KubeVirt (createTargetPod in
// pkg/virt-controller/watch/migration/migration.go) and of Kubernetes (syncPod in
// pkg/controller/resourceclaim, CheckRequest in k8s.io/apiserver's admission/plugin/resourcequota):
//
//	Error creating pod: pods "virt-launcher-a" is forbidden: exceeded quota: q,
//	requested: limits.cpu=1015m,limits.memory=2773714688, used: ..., limited: ...
//	PodResourceClaim net: create ResourceClaim : resourceclaims.resource.k8s.io "..." is forbidden: ...
//
// An amount that cannot be read is left out. There is no name if anything else is wrong.
func parseRefusal(message, begin string) (quotaName string, asked corev1.ResourceList) {
	_, reason, _ := strings.Cut(message, begin)
	_, reason, _ = strings.Cut(reason, exceededQuota)
	quotaName, reason, _ = strings.Cut(reason, ", requested: ")
	amounts, _, complete := strings.Cut(reason, ", used: ")
	if !complete || len(validation.IsDNS1123Subdomain(quotaName)) > 0 {
		return "", nil
	}
	asked = corev1.ResourceList{}
	for amount := range strings.SplitSeq(amounts, ",") {
		name, value, _ := strings.Cut(amount, "=")
		// An exponent makes a short text an amount that takes seconds to compare.
		if len(value) > longestAmount || strings.ContainsAny(value, "eE") {
			continue
		}
		if q, err := resource.ParseQuantity(value); err == nil {
			asked[corev1.ResourceName(name)] = q
		}
	}
	return quotaName, asked
}
