package model

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	for _, c := range conditionsOf(ns).Conditions {
		if c.Type == name {
			return c.Status == "True"
		}
	}
	return false
}

// set returns a copy of ns with a condition that is as old as now.
func set(ns *corev1.Namespace, name string, value bool) (*corev1.Namespace, error) {
	next := condition{Type: name, Status: "False", LastUpdateTime: time.Now().Add(time.Second).Format(time.RFC3339)}
	if value {
		next.Status = "True"
	}
	s := conditionsOf(ns)
	found := false
	for i := range s.Conditions {
		if s.Conditions[i].Type == name {
			s.Conditions[i], found = next, true
		}
	}
	if !found {
		s.Conditions = append(s.Conditions, next)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	ns = ns.DeepCopy()
	metav1.SetMetaDataAnnotation(&ns.ObjectMeta, statusAnnotation, string(text))
	return ns, nil
}
