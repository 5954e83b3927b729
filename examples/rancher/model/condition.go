package model

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	statusAnnotation = "cattle.io/status"
	validated        = "ResourceQuotaValidated"
	initialized      = "ResourceQuotaInit"
)

type status struct{ Conditions []condition }

type condition struct{ Type, Status, Message, LastUpdateTime string }

func conditionsOf(ns *corev1.Namespace) (s status) {
	if err := json.Unmarshal([]byte(ns.Annotations[statusAnnotation]), &s); err != nil {
		return status{}
	}
	return s
}

func isSet(ns *corev1.Namespace, name string) bool {
	return slices.ContainsFunc(conditionsOf(ns).Conditions, func(c condition) bool { return c.Type == name && c.Status == "True" })
}

// set writes a condition that is as old as now.
func (c *Controller) set(ctx context.Context, ns *corev1.Namespace, name string, value bool) (*corev1.Namespace, error) {
	next := condition{Type: name, Status: "False", LastUpdateTime: c.Now().UTC().Add(time.Second).Format(time.RFC3339)}
	if value {
		next.Status = "True"
	}
	s := conditionsOf(ns)
	if i := slices.IndexFunc(s.Conditions, func(c condition) bool { return c.Type == name }); i >= 0 {
		s.Conditions[i] = next
	} else {
		s.Conditions = append(s.Conditions, next)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return ns, err
	}
	return c.annotate(ctx, ns, statusAnnotation, string(text))
}
