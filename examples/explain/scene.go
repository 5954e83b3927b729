package main

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// A scene is what is to be explained: the state of some namespaces at one moment.
type scene struct {
	source  source
	tenants []tenant // sorted by name
	notes   []string
}

// A source says where a scene comes from.
type source struct {
	Kind    string   `json:"kind"`
	Context string   `json:"context,omitempty"` // of the kubeconfig
	Files   []string `json:"files,omitempty"`
	At      string   `json:"at,omitempty"`  // the moment of the recordings; empty: each at its end
	End     string   `json:"end,omitempty"` // when the recording ends, if there is one only
}

// The kinds of source.
const (
	clusterSource   = "cluster"
	filesSource     = "files"
	recordingSource = "recording"
)

// A tenant is what is known about one namespace.
type tenant struct {
	name     string
	quotas   []*corev1.ResourceQuota // sorted by name
	snapshot migration.Snapshot
}

// newTenant returns what cache holds of namespace.
func newTenant(namespace string, cache *recording.Cache) tenant {
	return tenant{
		name:     namespace,
		quotas:   cache.Quotas(namespace),
		snapshot: cache.Snapshot(namespace),
	}
}

// enforced returns the limits that the API server enforces now.
func enforced(rq *corev1.ResourceQuota) corev1.ResourceList {
	if rq.Status.Hard == nil {
		return rq.Spec.Hard // kube-controller-manager is about to copy them
	}
	return rq.Status.Hard
}
