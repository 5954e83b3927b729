package rancher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	arithmetic "github.com/vmquota/headroom/quota/amounts"
)

// HarvesterSkip is the annotation by which a person tells Harvester to leave a
// ResourceQuota alone, if its value is "true".
const HarvesterSkip = "harvesterhci.io/skipResourceQuotaAutoScaling"

// The annotations that Harvester's own scaling writes to a ResourceQuota (its
// pkg/util/constants.go). It sets limits.cpu and limits.memory to the limits of the
// namespace plus the values of all entries and of the compensation.
const (
	namedEntry   = "harvesterhci.io/migrating-"    // and the name of a VMI; v1.4.1 and older
	uidEntry     = "harvesterhci.io/migratingUID-" // and the UID of a VMI
	compensation = "harvesterhci.io/migratingCompensation"
	// resync is "true" until spec.hard has followed a change of the others, then "false".
	resync = "harvesterhci.io/migratingScalingResyncNeeded"
)

// HarvesterSkips reports whether Harvester is told to leave rq alone. It is for
// applier.Config.DisabledFor.
func HarvesterSkips(rq *corev1.ResourceQuota) bool {
	return rq != nil && rq.Annotations[HarvesterSkip] == "true"
}

// Clean returns a copy of rq without what Harvester's own scaling has left behind: its
// annotations, and what it added to limits.cpu and limits.memory in spec.hard. It returns
// nil if rq has none of its annotations. Everything else in rq stays, HarvesterSkip included.
//
// Ns is the namespace of rq, read after rq. Its annotation [LimitsAnnotation] is what
// Harvester adds to, so it decides, and not what the entries say: entries leak, and
// spec.hard follows them late.
//
//   - A limit above the annotation's becomes the annotation's. A lower one stays.
//   - A limit that the annotation does not have, or has as zero, stays. Harvester does not
//     raise it.
//   - Without the annotation, the entries are subtracted if Harvester says that spec.hard
//     contains them.
//
// In all other cases the static limit is not known. The error joins an [Error] with
// ErrUnclear for each such limit, and there is no copy. These cases are: no readable annotation
// and no sign that spec.hard contains the entries; HarvesterSkip, where a person may have set a
// limit that the entries do not explain; and an annotation that Rancher has refused (condition
// ResourceQuotaValidated is False), because what Rancher gave instead is not recorded.
func Clean(rq *corev1.ResourceQuota, ns *corev1.Namespace) (*corev1.ResourceQuota, error) {
	if rq == nil || !scaled(rq) {
		return nil, nil
	}
	staticLimit, next := staticOf(rq, ns), rq.DeepCopy()
	var unclear []error
	for _, name := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		live, limited := rq.Spec.Hard[name]
		if !limited {
			continue
		}
		static, err := staticLimit(name, live)
		if err != nil {
			field := fmt.Sprintf("spec.hard[%s]", name)
			unclear = append(unclear, &Error{Namespace: rq.Namespace, Quota: rq.Name, Field: field, Err: fmt.Errorf("%w: %w", ErrUnclear, err)})
		}
		next.Spec.Hard[name] = static
	}
	if len(unclear) > 0 {
		return nil, errors.Join(unclear...)
	}
	maps.DeleteFunc(next.Annotations, func(key, _ string) bool { return key == resync || isEntry(key) })
	if len(next.Annotations) == 0 {
		next.Annotations = nil
	}
	return next, nil
}

// CleanNamespace cleans the ResourceQuotas of a namespace as [Clean] says. It writes only
// those that have something to clean, once, with the resourceVersion that it read; a
// conflict is returned and can be tried again. Call it when no Harvester that scales by
// itself runs any more. Migrations may run.
//
// An error does not keep it from the other quotas. If Rancher's webhook refuses the write
// (2.14.6, 2.15.2 and newer, for a quota with the label [QuotaLabel]), the error is an
// [Error] with ErrLocked. Rancher's next sync of the namespace then sets spec.hard to the
// static limits by itself, unless they do not fit the project. The annotations stay. They
// have no effect, except that an old Harvester does not change the limits of the namespace.
//
// It needs get of namespaces, and list and update of resourcequotas.
func CleanNamespace(ctx context.Context, client typedcorev1.CoreV1Interface, namespace string) error {
	quotas, err := client.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return &Error{Namespace: namespace, Err: fmt.Errorf("list ResourceQuotas: %w", err)}
	}
	if !slices.ContainsFunc(quotas.Items, func(rq corev1.ResourceQuota) bool { return scaled(&rq) }) {
		return nil
	}
	ns, err := client.Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return &Error{Namespace: namespace, Err: fmt.Errorf("get Namespace: %w", err)}
	}
	var failed []error
	for i := range quotas.Items {
		next, err := Clean(&quotas.Items[i], ns)
		if err != nil || next == nil {
			failed = append(failed, err)
			continue
		}
		if _, err = client.ResourceQuotas(namespace).Update(ctx, next, metav1.UpdateOptions{}); err == nil {
			continue
		}
		// An admission webhook may answer with 403 or with 400, and need not give a reason.
		if next.Labels[QuotaLabel] == "true" && (apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)) {
			err = fmt.Errorf("%w: %w", ErrLocked, err)
		}
		failed = append(failed, &Error{Namespace: namespace, Quota: next.Name, Err: err})
	}
	return errors.Join(failed...)
}

// isEntry reports whether an annotation says what Harvester's scaling has added.
func isEntry(annotation string) bool {
	return annotation == compensation || strings.HasPrefix(annotation, uidEntry) || strings.HasPrefix(annotation, namedEntry)
}

// scaled reports whether Harvester's scaling has written to rq.
func scaled(rq *corev1.ResourceQuota) bool {
	_, resyncs := rq.Annotations[resync]
	return resyncs || slices.ContainsFunc(slices.Collect(maps.Keys(rq.Annotations)), isEntry)
}

// staticOf returns a function that returns the static limit of a resource, of which live is in
// spec.hard of rq, or why it is not known.
func staticOf(
	rq *corev1.ResourceQuota, ns *corev1.Namespace,
) func(corev1.ResourceName, resource.Quantity) (resource.Quantity, error) {
	entries, isRaised, malformed := readEntries(rq)
	isRaised = isRaised || rq.Annotations[resync] == "true"
	followed := rq.Annotations[resync] == "false" // spec.hard is said to contain the entries
	limits, unknown := Limits(ns)
	if limits == nil && unknown == nil {
		unknown = errors.New("the namespace has no annotation " + LimitsAnnotation)
	}
	return func(name corev1.ResourceName, live resource.Quantity) (resource.Quantity, error) {
		asked, added, rest := limits[name], entries[name], live.DeepCopy()
		rest.Sub(added)
		switch {
		case !isRaised || limits != nil && (asked.Sign() == 0 || live.Cmp(asked) <= 0):
			return live.DeepCopy(), nil
		case limits != nil && isRefused(ns):
			return live, errors.New("the limits that the namespace asks for were refused by Rancher")
		case limits != nil && !HarvesterSkips(rq):
			return asked.DeepCopy(), nil
		case malformed != nil:
			return live, malformed
		case limits != nil && rest.Cmp(asked) != 0:
			return live, fmt.Errorf("it is not %s and what migrations added, and %s is set",
				asked.String(), HarvesterSkip)
		case limits == nil && (!followed || !added.IsZero() && (HarvesterSkips(rq) || rest.Sign() <= 0)):
			return live, unknown
		}
		return rest, nil
	}
}

// readEntries returns what the annotations of rq say was added, whether any of them says so,
// and why that is incomplete.
func readEntries(rq *corev1.ResourceQuota) (added corev1.ResourceList, some bool, malformed error) {
	added = corev1.ResourceList{}
	for _, key := range slices.Sorted(maps.Keys(rq.Annotations)) {
		value := rq.Annotations[key]
		if !isEntry(key) || key == compensation && value == "" {
			continue
		}
		some = true
		entry, err := readEntry(value)
		if err != nil && malformed == nil {
			malformed = fmt.Errorf("annotation %s: %w: %w", key, ErrMalformed, err)
		}
		for name, q := range entry {
			if key != compensation || name == corev1.ResourceLimitsMemory {
				added[name] = arithmetic.Plus(added[name], q)
			}
		}
	}
	return added, some, malformed
}

// readEntry reads a ResourceList in JSON. Amounts may be null, as in Harvester.
func readEntry(value string) (corev1.ResourceList, error) {
	fields, err := object[map[string]json.RawMessage](value)
	if err != nil {
		return nil, err
	}
	list := corev1.ResourceList{}
	for _, name := range slices.Sorted(maps.Keys(*fields)) {
		text := string((*fields)[name])
		if text == "null" {
			continue
		}
		if c := text[0]; c == '-' || '0' <= c && c <= '9' {
			text = `"` + text + `"`
		}
		q, err := amount(json.RawMessage(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list[corev1.ResourceName(name)] = q
	}
	return list, nil
}

// isRefused reports whether Rancher says that the limits that ns asks for do not fit the
// project.
func isRefused(ns *corev1.Namespace) bool {
	type condition struct{ Type, Status string }
	var status struct{ Conditions []condition }
	if ns == nil || json.Unmarshal([]byte(ns.Annotations["cattle.io/status"]), &status) != nil {
		return false // Rancher has not said anything
	}
	return slices.Contains(status.Conditions, condition{"ResourceQuotaValidated", "False"})
}
