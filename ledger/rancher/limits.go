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

	"github.com/vmquota/headroom/ledger/internal/spelling"
)

// LimitsAnnotation is on a Namespace, and holds the limits that were asked for it in
// Rancher.
const LimitsAnnotation = "field.cattle.io/resourceQuota"

// fields are Rancher's names of limits (ResourceQuotaLimit of its
// pkg/apis/management.cattle.io/v3). All others are in its map "extended".
var fields = map[string]corev1.ResourceName{
	"configMaps":             corev1.ResourceConfigMaps,
	"limitsCpu":              corev1.ResourceLimitsCPU,
	"limitsMemory":           corev1.ResourceLimitsMemory,
	"persistentVolumeClaims": corev1.ResourcePersistentVolumeClaims,
	"pods":                   corev1.ResourcePods,
	"replicationControllers": corev1.ResourceReplicationControllers,
	"requestsCpu":            corev1.ResourceRequestsCPU,
	"requestsMemory":         corev1.ResourceRequestsMemory,
	"requestsStorage":        corev1.ResourceRequestsStorage,
	"secrets":                corev1.ResourceSecrets,
	"services":               corev1.ResourceServices,
	"servicesLoadBalancers":  corev1.ResourceServicesLoadBalancers,
	"servicesNodePorts":      corev1.ResourceServicesNodePorts,
}

const extended = "extended"

// Limits returns the limits that LimitsAnnotation asks for, in ResourceQuota names. They
// are not the static limits: those of the project's default may be missing, and what does
// not fit the project stays in the annotation without being enforced. [applier.Static] of
// the ResourceQuota has those.
//
// Nil, no annotation and an empty one ask for nothing: the result is nil. One without a
// limit in it has a result that is empty. A field of its own goes before the same name in
// "extended". As in Rancher, an empty amount of such a field is an absent one, and unknown
// fields are ignored.
//
// A null, other JSON than expected, and an amount that is malformed or negative are an
// [Error] with ErrMalformed inside, and there is no result. Of several faults it names the
// first by the name of the field.
func Limits(ns *corev1.Namespace) (corev1.ResourceList, error) {
	if ns == nil || strings.TrimSpace(ns.Annotations[LimitsAnnotation]) == "" {
		return nil, nil
	}
	annotation, err := object(ns.Annotations[LimitsAnnotation])
	if err != nil {
		return nil, malformed(ns, "", err)
	}
	limits := corev1.ResourceList{}
	if annotation["limit"] == nil {
		return limits, nil
	}
	limit, err := object(string(annotation["limit"]))
	if err != nil {
		return nil, malformed(ns, "limit", err)
	}
	if limit[extended] != nil {
		more, err := object(string(limit[extended]))
		if err != nil {
			return nil, malformed(ns, "limit."+extended, err)
		}
		for _, name := range slices.Sorted(maps.Keys(more)) {
			if limits[corev1.ResourceName(name)], err = amount(more[name]); err != nil {
				return nil, malformed(ns, fmt.Sprintf("limit.%s[%s]", extended, name), err)
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if value, ok := limit[field]; ok && string(value) != `""` {
			if limits[fields[field]], err = amount(value); err != nil {
				return nil, malformed(ns, "limit."+field, err)
			}
		}
	}
	return limits, nil
}

func malformed(ns *corev1.Namespace, field string, err error) error {
	return &Error{Namespace: ns.Name, Field: field, Err: fmt.Errorf("%w: %w", ErrMalformed, err)}
}

var errNull = errors.New("it is null")

func object(text string) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errNull
	}
	return members, nil
}

// amount reads a quantity that anybody may have written.
func amount(value json.RawMessage) (resource.Quantity, error) {
	var text *string
	if err := json.Unmarshal(value, &text); err != nil {
		return resource.Quantity{}, err
	}
	if text == nil {
		return resource.Quantity{}, errNull
	}
	q, err := spelling.Parse(*text)
	if err == nil && q.Sign() < 0 {
		err = errors.New("it is negative")
	}
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("%.64q: %w", *text, err)
	}
	return q, nil
}
