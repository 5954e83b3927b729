package rancher

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// A HarvesterError is an annotation of Harvester that cannot be understood, or a part of
// one. Inside is ErrMalformed.
type HarvesterError struct {
	Namespace  string
	Quota      string // the name of the ResourceQuota
	Annotation string // its key
	Field      string // in the value, such as limits.memory; empty: it is about all of the value
	Err        error
}

func (e *HarvesterError) Error() string {
	field := ""
	if e.Field != "" {
		field = ": " + e.Field
	}
	return fmt.Sprintf("ResourceQuota %s/%s: annotation %s%s: %v", e.Namespace, e.Quota, e.Annotation, field, e.Err)
}

// Unwrap returns Err.
func (e *HarvesterError) Unwrap() error { return e.Err }

// ReadHarvester returns what Harvester's annotations on rq say. Of a nil rq that is
// nothing.
//
// An annotation that is malformed does not hide the others, nor a field of it the other
// fields: the record is what could be read, and the error joins a *[HarvesterError] for
// each that could not, in the order of annotations and fields. Negative amounts, which
// Harvester never writes, are malformed, and so are amounts of more than 64 characters
// or with an exponent of more than two digits. As in Harvester, a null is nothing.
func ReadHarvester(rq *corev1.ResourceQuota) (HarvesterRecord, error) {
	var r HarvesterRecord
	if rq == nil {
		return r, nil
	}
	var malformed []error
	for _, key := range slices.Sorted(maps.Keys(rq.Annotations)) {
		value := rq.Annotations[key]
		switch {
		case key == HarvesterResync:
			r.Changed, r.Followed = value == "true", value == "false"
			continue
		case key == HarvesterCompensation && value == "":
			continue // it is none, as in Harvester
		case !ofHarvester(key):
			continue
		}
		surge, errs := readList(value)
		for _, e := range errs {
			e.Namespace, e.Quota, e.Annotation = rq.Namespace, rq.Name, key
			malformed = append(malformed, e)
		}
		if key == HarvesterCompensation {
			r.Compensation = surge
		} else if surge != nil {
			r.Entries = append(r.Entries, entryOf(key, surge))
		}
	}
	return r, errors.Join(malformed...)
}

func entryOf(annotation string, surge corev1.ResourceList) HarvesterEntry {
	e := HarvesterEntry{Annotation: annotation, Surge: surge}
	if uid, ok := strings.CutPrefix(annotation, HarvesterUIDPrefix); ok {
		e.UID = types.UID(uid)
	} else {
		e.VMI = strings.TrimPrefix(annotation, HarvesterNamePrefix)
	}
	return e
}

// readList reads a ResourceList in JSON. It is nil if it is no JSON object at all.
func readList(value string) (corev1.ResourceList, []*HarvesterError) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &fields); err != nil {
		return nil, []*HarvesterError{{Err: fmt.Errorf("%w: %w", ErrMalformed, err)}}
	}
	list := make(corev1.ResourceList, len(fields))
	var malformed []*HarvesterError
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		q, err := readAmount(fields[name])
		if err != nil {
			malformed = append(malformed, &HarvesterError{Field: name, Err: fmt.Errorf("%w: %w", ErrMalformed, err)})
			continue
		}
		list[corev1.ResourceName(name)] = q
	}
	return list, malformed
}

// readAmount reads what a resource.Quantity is in JSON: a string, a number, or null, which
// is zero.
func readAmount(value json.RawMessage) (resource.Quantity, error) {
	if string(value) == "null" {
		return resource.Quantity{}, nil
	}
	if c := value[0]; c == '-' || '0' <= c && c <= '9' {
		value = json.RawMessage(`"` + string(value) + `"`)
	}
	return amount(value)
}
