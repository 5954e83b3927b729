package onbed

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/ledger/applier"
)

// A QuotaVersion is a quota as a write has left it.
type QuotaVersion struct {
	*corev1.ResourceQuota
	Event bed.AuditEvent // of the write

	revision uint64
}

// QuotaVersions returns what the quotas were from each write to the next, in etcd's order.
func QuotaVersions(events []bed.AuditEvent) ([]QuotaVersion, error) {
	var found []QuotaVersion
	for _, e := range events {
		if e.Resource != "resourcequotas" || e.Code >= 300 || e.Verb == "delete" || len(e.ResponseObject) == 0 || strings.Contains(e.URI, "dryRun=") {
			continue
		}
		v := QuotaVersion{ResourceQuota: &corev1.ResourceQuota{}, Event: e}
		if err := json.Unmarshal(e.ResponseObject, v.ResourceQuota); err != nil {
			return nil, fmt.Errorf("%s: %w", where(e), err)
		}
		var err error
		if v.revision, err = strconv.ParseUint(v.ResourceVersion, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", where(e), err)
		}
		found = append(found, v)
	}
	slices.SortFunc(found, func(a, b QuotaVersion) int { return cmp.Compare(a.revision, b.revision) })
	return found, nil
}

// Wrote reports whether e is a write of the process under test to a quota that was carried
// out.
func Wrote(e bed.AuditEvent) bool {
	return (e.User == User || e.User == OtherUser) && e.Resource == "resourcequotas" && e.Code < 300
}

// TargetOf returns the name of the migration whose target pod e creates, or tries to; empty if e
// is something else.
func TargetOf(e bed.AuditEvent) string {
	var pod corev1.Pod
	if e.Verb != "create" || e.Resource != "pods" || e.Subresource != "" || json.Unmarshal(e.RequestObject, &pod) != nil {
		return ""
	}
	return pod.Annotations[kubevirtv1.MigrationJobNameAnnotation]
}

// Timeline says what the API server was asked between two moments, in seconds from since on.
func Timeline(events []bed.AuditEvent, since, from, to time.Time) (text string) {
	for _, e := range events {
		if e.Answered.Before(from) || e.Received.After(to) {
			continue
		}
		text += fmt.Sprintf("\n  %8.3f s, took %3d ms: %s %s %s/%s %s: %d %.80s", e.Received.Sub(since).Seconds(),
			e.Answered.Sub(e.Received).Milliseconds(), e.User, e.Verb, e.Resource, e.Subresource, cmp.Or(e.Name, TargetOf(e)), e.Code, e.Message)
		if versions, err := QuotaVersions([]bed.AuditEvent{e}); err == nil && len(versions) > 0 {
			rq := versions[0]
			text += fmt.Sprintf("%s, spec.hard %s, status %s", rq.Annotations[applier.OfferAnnotation], Spelled(rq.Spec.Hard), Spelled(rq.Status))
		}
	}
	return text
}

// CheckAudit reads an audit log, and returns an error for every request of [User] that
// writes a quota otherwise than by an update of resourcequotas/status, whatever came of
// it; and for every such update that has changed spec, usage, labels, or an annotation
// that is not applier.OfferAnnotation.
func CheckAudit(events []bed.AuditEvent) error {
	var wrong []error
	for _, e := range events {
		if e.Resource == "resourcequotas" && e.User == User && (e.Verb != "update" || e.Subresource != "status") {
			wrong = append(wrong, fmt.Errorf("%s: the library tried to %s resourcequotas/%s", where(e), e.Verb, e.Subresource))
		}
	}
	versions, err := QuotaVersions(events)
	last := map[types.UID]QuotaVersion{}
	for _, v := range versions {
		delete(v.Annotations, applier.OfferAnnotation)
		before, known := last[v.UID]
		last[v.UID] = v
		if !known || v.Event.User != User {
			continue
		}
		if what := v.changed(before); what != "" {
			wrong = append(wrong, fmt.Errorf("%s: the library changed %s: %s", where(v.Event), what, v.Event.ResponseObject))
		}
	}
	return errors.Join(append(wrong, err)...)
}

func where(e bed.AuditEvent) string {
	return fmt.Sprintf("audit log, %s, quota %s/%s", e.Received.Format("15:04:05.000"), e.Namespace, e.Name)
}

// changed says what of all that the library must not change is not as it was before.
func (v QuotaVersion) changed(before QuotaVersion) string {
	switch {
	case Spelled(v.Spec) != Spelled(before.Spec):
		return "spec"
	case Spelled(v.Status.Used) != Spelled(before.Status.Used):
		return "status.used"
	case !maps.Equal(v.Labels, before.Labels):
		return "labels"
	case !maps.Equal(v.Annotations, before.Annotations):
		return "annotations"
	default:
		return ""
	}
}

// Spelled is a part of an object as the API server has it, to the byte.
func Spelled(part any) string {
	text, err := json.Marshal(part)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
