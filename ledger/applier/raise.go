package applier

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/ledger/internal/spelling"
	"github.com/vmquota/headroom/quota"
)

const (
	// StaticAnnotation is on a raised ResourceQuota, and holds its static limits: a
	// JSON object of quantities, such as {"limits.cpu":"4"}.
	StaticAnnotation = "headroom.vmquota.io/static"
	// AppliedAnnotation is beside StaticAnnotation, and holds spec.hard as it was
	// written together with it. What differs from it was changed by somebody else.
	AppliedAnnotation = "headroom.vmquota.io/applied"
	// DisabledAnnotation is the kill switch of one ResourceQuota, if its value is
	// "true".
	DisabledAnnotation = "headroom.vmquota.io/disabled"
)

// A raise is what the annotations of a raised quota say.
type raise struct {
	static, applied corev1.ResourceList // have the same keys
}

// Static returns the limits that the tenant was given: spec.hard, unless rq is raised.
// Then they are those in StaticAnnotation, with what somebody has changed in spec.hard
// since (see quota.Rebase). The result shares no memory with rq. Of nil it is nil.
//
// If the annotations cannot be understood, the static limits are not known, and the
// error is an [Error] with ErrUnreadable inside.
func Static(rq *corev1.ResourceQuota) (corev1.ResourceList, error) {
	if rq == nil {
		return nil, nil
	}
	r, err := raiseOf(rq)
	if err != nil {
		return nil, err
	}
	return r.limits(rq), nil
}

// limits returns the static limits of rq, which r raises.
func (r *raise) limits(rq *corev1.ResourceQuota) corev1.ResourceList {
	if r == nil {
		return quota.Rebase(nil, nil, rq.Spec.Hard)
	}
	return quota.Rebase(r.static, r.applied, rq.Spec.Hard)
}

// WithLimits returns a copy of rq, to be written by one update, in which spec.hard is
// hard and the annotations say that static are its static limits. If hard equals static,
// the copy has spec.hard as static has it and no trace of a raise.
func WithLimits(rq *corev1.ResourceQuota, static, hard corev1.ResourceList) *corev1.ResourceQuota {
	if rq == nil {
		return nil
	}
	rq = rq.DeepCopy()
	static, hard = exact(static), exact(hard)
	if quota.Equal(static, hard) {
		rq.Spec.Hard = static
		delete(rq.Annotations, StaticAnnotation)
		delete(rq.Annotations, AppliedAnnotation)
		delete(rq.Annotations, GuardAnnotation)
		if len(rq.Annotations) == 0 {
			rq.Annotations = nil
		}
		return rq
	}
	rq.Spec.Hard = hard
	if rq.Annotations == nil {
		rq.Annotations = map[string]string{}
	}
	rq.Annotations[StaticAnnotation] = encode(static)
	rq.Annotations[AppliedAnnotation] = encode(hard)
	return rq
}

// isRaised reports whether rq has any of the annotations of a raise.
func isRaised(rq *corev1.ResourceQuota) bool {
	_, hasStatic := rq.Annotations[StaticAnnotation]
	_, hasApplied := rq.Annotations[AppliedAnnotation]
	return hasStatic || hasApplied
}

// raiseOf returns what raises rq, nil if nothing does.
func raiseOf(rq *corev1.ResourceQuota) (*raise, error) {
	if !isRaised(rq) {
		return nil, nil
	}
	static, err := decodeFrom(rq, StaticAnnotation)
	if err != nil {
		return nil, err
	}
	applied, err := decodeFrom(rq, AppliedAnnotation)
	if err != nil {
		return nil, err
	}
	if !maps.EqualFunc(static, applied, func(_, _ resource.Quantity) bool { return true }) {
		return nil, unreadable(rq, AppliedAnnotation, errors.New("it does not limit the same resources as the static limits"))
	}
	return &raise{static: static, applied: applied}, nil
}

func decodeFrom(rq *corev1.ResourceQuota, annotation string) (corev1.ResourceList, error) {
	value, ok := rq.Annotations[annotation]
	if !ok {
		return nil, unreadable(rq, annotation, errors.New("it is missing"))
	}
	list, err := decode(value)
	if err != nil {
		return nil, unreadable(rq, annotation, err)
	}
	return list, nil
}

func unreadable(rq *corev1.ResourceQuota, annotation string, err error) error {
	return &Error{Namespace: rq.Namespace, Quota: rq.Name, Annotation: annotation, Err: fmt.Errorf("%w: %w", ErrUnreadable, err)}
}

// encode writes list as JSON, its keys sorted. Names and quantities are always valid in
// JSON.
func encode(list corev1.ResourceList) string {
	amounts := make(map[corev1.ResourceName]string, len(list))
	for name, q := range list {
		amounts[name] = q.String()
	}
	value, err := json.Marshal(amounts)
	if err != nil {
		return ""
	}
	return string(value)
}

// decode reads what encode has written, or a person.
func decode(value string) (corev1.ResourceList, error) {
	var amounts map[corev1.ResourceName]string
	if err := json.Unmarshal([]byte(value), &amounts); err != nil {
		return nil, err
	}
	if amounts == nil {
		return nil, errors.New("it is not a list of limits")
	}
	list := make(corev1.ResourceList, len(amounts))
	for _, name := range slices.Sorted(maps.Keys(amounts)) {
		q, err := parse(amounts[name])
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", name, amounts[name], err)
		}
		list[name] = q
	}
	return list, nil
}

// parse reads a limit.
func parse(amount string) (resource.Quantity, error) {
	q, err := spelling.Parse(amount)
	if err == nil && q.Sign() < 0 {
		err = errors.New("a limit is not negative")
	}
	return q, err
}
