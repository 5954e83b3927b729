package rancher

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
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

// A limit has Rancher's names of limits (ResourceQuotaLimit of its
// pkg/apis/management.cattle.io/v3), by name, and those of ResourceQuota. All others are in
// its map "extended". As in Rancher, encoding/json matches the names of its members, in whatever
// case they are, and takes the last of several.
type limit struct {
	Extended               json.RawMessage `json:"extended"`
	ConfigMaps             json.RawMessage `json:"configMaps" quota:"configmaps"`
	LimitsCPU              json.RawMessage `json:"limitsCpu" quota:"limits.cpu"`
	LimitsMemory           json.RawMessage `json:"limitsMemory" quota:"limits.memory"`
	PersistentVolumeClaims json.RawMessage `json:"persistentVolumeClaims" quota:"persistentvolumeclaims"`
	Pods                   json.RawMessage `json:"pods" quota:"pods"`
	ReplicationControllers json.RawMessage `json:"replicationControllers" quota:"replicationcontrollers"`
	RequestsCPU            json.RawMessage `json:"requestsCpu" quota:"requests.cpu"`
	RequestsMemory         json.RawMessage `json:"requestsMemory" quota:"requests.memory"`
	RequestsStorage        json.RawMessage `json:"requestsStorage" quota:"requests.storage"`
	Secrets                json.RawMessage `json:"secrets" quota:"secrets"`
	Services               json.RawMessage `json:"services" quota:"services"`
	ServicesLoadBalancers  json.RawMessage `json:"servicesLoadBalancers" quota:"services.loadbalancers"`
	ServicesNodePorts      json.RawMessage `json:"servicesNodePorts" quota:"services.nodeports"`
}

// fields calls yield with Rancher's name, the resource and the value of each limit but extended.
func (l *limit) fields(yield func(name string, resource corev1.ResourceName, value json.RawMessage)) {
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if resource := tag.Get("quota"); resource != "" {
			yield(tag.Get("json"), corev1.ResourceName(resource), v.Field(i).Bytes())
		}
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
	limits := corev1.ResourceList{}
	at := "" // the field that is read
	fail := func(err error) (corev1.ResourceList, error) {
		return nil, &Error{Namespace: ns.Name, Field: at, Err: fmt.Errorf("%w: %w", ErrMalformed, err)}
	}
	annotation, err := object[struct{ Limit json.RawMessage }](ns.Annotations[LimitsAnnotation])
	if err != nil {
		return fail(err)
	}
	if annotation.Limit == nil {
		return limits, nil
	}
	at = "limit"
	l, err := object[limit](string(annotation.Limit))
	if err != nil {
		return fail(err)
	}
	if l.Extended != nil {
		at = "limit.extended"
		more, err := object[map[string]json.RawMessage](string(l.Extended))
		if err != nil {
			return fail(err)
		}
		for _, name := range slices.Sorted(maps.Keys(*more)) {
			at = fmt.Sprintf("limit.extended[%s]", name)
			if limits[corev1.ResourceName(name)], err = amount((*more)[name]); err != nil {
				return fail(err)
			}
		}
	}
	l.fields(func(name string, resource corev1.ResourceName, value json.RawMessage) {
		if err == nil && value != nil && string(value) != `""` {
			at = "limit." + name
			limits[resource], err = amount(value)
		}
	})
	if err != nil {
		return fail(err)
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
	(&limit{}).fields(func(name string, resource corev1.ResourceName, _ json.RawMessage) {
		if text, ok := extended[string(resource)]; ok {
			limits[name] = text
			delete(extended, string(resource))
		}
	})
	if len(extended) > 0 {
		limits["extended"] = extended
	}
	text, _ := json.Marshal(map[string]any{"limit": limits}) // strings in maps
	return string(text)
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
