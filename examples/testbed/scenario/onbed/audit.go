package onbed

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/ledger/applier"
)

// CheckAudit reads an audit log, and returns an error for every request of [User] that
// writes a quota otherwise than by an update of resourcequotas/status, whatever came of
// it; and for every such update that has changed spec, usage, labels, or an annotation
// that is not applier.OfferAnnotation.
func CheckAudit(events []bed.AuditEvent) error {
	var wrong []error
	versions := map[types.UID][]version{}
	for _, e := range events {
		if e.Resource != "resourcequotas" || e.Group != "" {
			continue
		}
		if e.User == User && (e.Verb != "update" || e.Subresource != "status") {
			wrong = append(wrong, fmt.Errorf("%s: the library tried to %s resourcequotas/%s", where(e), e.Verb, e.Subresource))
			continue
		}
		if e.Code >= 300 || e.Verb == "delete" || len(e.ResponseObject) == 0 {
			continue
		}
		v, err := readVersion(e)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", where(e), err))
			continue
		}
		if v.revision == 0 {
			continue
		}
		versions[v.Metadata.UID] = append(versions[v.Metadata.UID], v)
	}
	for _, history := range versions {
		slices.SortFunc(history, func(a, b version) int { return cmp.Compare(a.revision, b.revision) })
		for i, v := range history {
			if v.event.User != User || i == 0 {
				continue
			}
			if what := v.changed(history[i-1]); what != "" {
				wrong = append(wrong, fmt.Errorf("%s: the library changed %s: %s", where(v.event), what, v.event.ResponseObject))
			}
		}
	}
	return errors.Join(wrong...)
}

func where(e bed.AuditEvent) string {
	return fmt.Sprintf("audit log, %s, quota %s/%s", e.Received.Format("15:04:05.000"), e.Namespace, e.Name)
}

// A version is a quota as a write has left it.
type version struct {
	event    bed.AuditEvent
	revision uint64

	Metadata struct {
		UID             types.UID         `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec   json.RawMessage `json:"spec"`
	Status struct {
		Used json.RawMessage `json:"used"`
	} `json:"status"`
}

func readVersion(e bed.AuditEvent) (version, error) {
	v := version{event: e}
	if err := json.Unmarshal(e.ResponseObject, &v); err != nil {
		return v, err
	}
	delete(v.Metadata.Annotations, applier.OfferAnnotation)
	if v.Metadata.ResourceVersion == "" { // a dry run
		return v, nil
	}
	var err error
	v.revision, err = strconv.ParseUint(v.Metadata.ResourceVersion, 10, 64)
	return v, err
}

// changed says what of all that the library must not change is not as it was before.
func (v version) changed(before version) string {
	switch {
	case !bytes.Equal(v.Spec, before.Spec):
		return "spec"
	case !bytes.Equal(v.Status.Used, before.Status.Used):
		return "status.used"
	case !maps.Equal(v.Metadata.Labels, before.Metadata.Labels):
		return "labels"
	case !maps.Equal(v.Metadata.Annotations, before.Metadata.Annotations):
		return "annotations"
	default:
		return ""
	}
}
