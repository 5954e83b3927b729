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

const (
	// LimitsAnnotation is on a Namespace, and holds the limits that were asked for it in
	// Rancher.
	LimitsAnnotation = "field.cattle.io/resourceQuota"
	// QuotaLabel is on the ResourceQuotas that Rancher manages, with the value "true".
	QuotaLabel = "resourcequota.management.cattle.io/default-resource-quota"
)

// An asked is LimitsAnnotation. As in Rancher, encoding/json matches the names of its
// members, in whatever case they are, and takes the last of several.
type asked struct {
	Limit json.RawMessage `json:"limit"`
}

// A limit has Rancher's names of limits (ResourceQuotaLimit of its
// pkg/apis/management.cattle.io/v3). All others are in its map "extended".
type limit struct {
	ConfigMaps             json.RawMessage `json:"configMaps"`
	Extended               json.RawMessage `json:"extended"`
	LimitsCPU              json.RawMessage `json:"limitsCpu"`
	LimitsMemory           json.RawMessage `json:"limitsMemory"`
	PersistentVolumeClaims json.RawMessage `json:"persistentVolumeClaims"`
	Pods                   json.RawMessage `json:"pods"`
	ReplicationControllers json.RawMessage `json:"replicationControllers"`
	RequestsCPU            json.RawMessage `json:"requestsCpu"`
	RequestsMemory         json.RawMessage `json:"requestsMemory"`
	RequestsStorage        json.RawMessage `json:"requestsStorage"`
	Secrets                json.RawMessage `json:"secrets"`
	Services               json.RawMessage `json:"services"`
	ServicesLoadBalancers  json.RawMessage `json:"servicesLoadBalancers"`
	ServicesNodePorts      json.RawMessage `json:"servicesNodePorts"`
}

// A field is one limit with a name of its own.
type field struct {
	name     string // Rancher's
	resource corev1.ResourceName
	value    json.RawMessage
}

// fields returns the fields of l, by name.
func (l *limit) fields() []field {
	return []field{
		{"configMaps", corev1.ResourceConfigMaps, l.ConfigMaps},
		{"limitsCpu", corev1.ResourceLimitsCPU, l.LimitsCPU},
		{"limitsMemory", corev1.ResourceLimitsMemory, l.LimitsMemory},
		{"persistentVolumeClaims", corev1.ResourcePersistentVolumeClaims, l.PersistentVolumeClaims},
		{"pods", corev1.ResourcePods, l.Pods},
		{"replicationControllers", corev1.ResourceReplicationControllers, l.ReplicationControllers},
		{"requestsCpu", corev1.ResourceRequestsCPU, l.RequestsCPU},
		{"requestsMemory", corev1.ResourceRequestsMemory, l.RequestsMemory},
		{"requestsStorage", corev1.ResourceRequestsStorage, l.RequestsStorage},
		{"secrets", corev1.ResourceSecrets, l.Secrets},
		{"services", corev1.ResourceServices, l.Services},
		{"servicesLoadBalancers", corev1.ResourceServicesLoadBalancers, l.ServicesLoadBalancers},
		{"servicesNodePorts", corev1.ResourceServicesNodePorts, l.ServicesNodePorts},
	}
}

// Limits returns the limits that LimitsAnnotation asks for, in ResourceQuota names. They
// may differ from the static limits: those of the project's default may be missing, and
// what does not fit the project stays in the annotation without being enforced. The static
// limits are spec.hard of the ResourceQuota, and status.hard is what is enforced.
//
// Nil, no annotation and an empty one ask for nothing: the result is nil. One without a
// limit in it has a result that is empty. A field of its own goes before the same name in
// "extended". As in Rancher, an empty amount of such a field is an absent one, the case of
// its name does not matter, and unknown fields are ignored.
//
// A null, other JSON than expected, and an amount that is malformed or negative are an
// [Error] with ErrMalformed inside, and there is no result. Of several faults it names the
// first by the name of the field.
func Limits(ns *corev1.Namespace) (corev1.ResourceList, error) {
	if ns == nil || strings.TrimSpace(ns.Annotations[LimitsAnnotation]) == "" {
		return nil, nil
	}
	annotation, err := object[asked](ns.Annotations[LimitsAnnotation])
	if err != nil {
		return nil, malformed(ns, "", err)
	}
	limits := corev1.ResourceList{}
	if annotation.Limit == nil {
		return limits, nil
	}
	l, err := object[limit](string(annotation.Limit))
	if err != nil {
		return nil, malformed(ns, "limit", err)
	}
	if l.Extended != nil {
		more, err := object[map[string]json.RawMessage](string(l.Extended))
		if err != nil {
			return nil, malformed(ns, "limit.extended", err)
		}
		for _, name := range slices.Sorted(maps.Keys(*more)) {
			if limits[corev1.ResourceName(name)], err = amount((*more)[name]); err != nil {
				return nil, malformed(ns, fmt.Sprintf("limit.extended[%s]", name), err)
			}
		}
	}
	for _, f := range l.fields() {
		if f.value != nil && string(f.value) != `""` {
			if limits[f.resource], err = amount(f.value); err != nil {
				return nil, malformed(ns, "limit."+f.name, err)
			}
		}
	}
	return limits, nil
}

// NotGiven returns those of [Limits] that are not the static limits in spec.hard of rq: what was
// asked for in Rancher and Rancher did not give. Either the project has no room for it, and
// the quota keeps what it had or has a zero; or the project's default does not have the
// resource; or Rancher has not synced the namespace yet. It is nil if Rancher gave all. What
// migrations add to status.hard makes no difference. The error is that of Limits.
func NotGiven(ns *corev1.Namespace, rq *corev1.ResourceQuota) (corev1.ResourceList, error) {
	asked, err := Limits(ns)
	if err != nil || rq == nil {
		return asked, err
	}
	maps.DeleteFunc(asked, func(name corev1.ResourceName, limit resource.Quantity) bool {
		static, given := rq.Spec.Hard[name]
		return given && static.Cmp(limit) == 0
	})
	if len(asked) == 0 {
		return nil, nil
	}
	return asked, nil
}

// Annotation returns a value of LimitsAnnotation that asks for hard, as Rancher writes it.
func Annotation(hard corev1.ResourceList) string {
	limits, extended := map[string]any{}, map[string]string{}
	for name, q := range hard {
		extended[string(name)] = q.String()
	}
	for _, f := range (&limit{}).fields() {
		if text, ok := extended[string(f.resource)]; ok {
			limits[f.name] = text
			delete(extended, string(f.resource))
		}
	}
	if len(extended) > 0 {
		limits["extended"] = extended
	}
	text, _ := json.Marshal(map[string]any{"limit": limits}) // strings in maps
	return string(text)
}

func malformed(ns *corev1.Namespace, field string, err error) error {
	return &Error{Namespace: ns.Name, Field: field, Err: fmt.Errorf("%w: %w", ErrMalformed, err)}
}

var errNull = errors.New("it is null")

// object reads a JSON object.
func object[T any](text string) (*T, error) {
	var members *T
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
