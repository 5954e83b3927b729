package main

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/ledger/applier"
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
	quotas   []*corev1.ResourceQuota        // sorted by name
	static   map[string]corev1.ResourceList // by the name of the quota
	snapshot migration.Snapshot
}

// newTenant returns what cache holds of namespace.
func newTenant(namespace string, cache *recording.Cache) tenant {
	t := tenant{
		name:     namespace,
		quotas:   cache.Quotas(namespace),
		static:   map[string]corev1.ResourceList{},
		snapshot: cache.Snapshot(namespace),
	}
	for _, rq := range t.quotas {
		t.static[rq.Name] = staticOf(rq)
	}
	return t
}

// staticOf returns the limits that the tenant was given: spec.hard, unless the quota says
// that it is raised for migrations, and what from. Where that cannot be read, it is
// spec.hard, and newReport says so.
func staticOf(rq *corev1.ResourceQuota) corev1.ResourceList {
	static, err := applier.Static(rq)
	if err != nil {
		return rq.Spec.Hard
	}
	return static
}

// isRaised reports whether the quota says that it is raised for migrations.
func isRaised(rq *corev1.ResourceQuota) bool {
	_, ok := rq.Annotations[applier.StaticAnnotation]
	return ok
}

// enforced returns the limits that the API server applies now. They follow
// spec.hard within milliseconds.
func enforced(rq *corev1.ResourceQuota) corev1.ResourceList {
	if rq.Status.Hard == nil {
		return rq.Spec.Hard
	}
	return rq.Status.Hard
}
