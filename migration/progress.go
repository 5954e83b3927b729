package migration

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// lingerTime is how long after the creation of a migration its losing pod may still be
// charged when it is over and this process did not see it.
const lingerTime = time.Hour

// inProgress reports whether a migration is in progress, or may be: KubeVirt takes its
// finalizer away when it is over.
func inProgress(object metav1.Object) bool {
	if u, ok := object.(*unstructured.Unstructured); ok {
		phase, _, err := unstructured.NestedString(u.Object, "status", "phase")
		return err != nil || phase != string(kubevirtv1.MigrationSucceeded) && phase != string(kubevirtv1.MigrationFailed)
	}
	return len(object.GetFinalizers()) > 0
}

// keepInProgress is what the store of all migrations keeps: the names of those in progress.
// KubeVirt keeps up to five of each VMI that are over, so in a large cluster there are hundreds
// of thousands.
func (i *informers) keepInProgress(object any) (kept any, err error) {
	o, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	namespace := strings.Clone(o.GetNamespace()) // o is a part of a page
	if inProgress(o) {
		name := strings.Clone(o.GetName())
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, nil
	}
	if i.isRecent(o) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.recent[namespace] = true
	}
	return nil, nil
}

func (i *informers) isRecent(o metav1.Object) bool {
	return i.controller.options.Now().Sub(o.GetCreationTimestamp().Time) < lingerTime
}

// allMigrations is the source of the migrations of all namespaces: of their metadata, where
// there is a client of that. There is never more in memory than a page of those that are over.
func (i *informers) allMigrations() *source {
	s := i.source(migrationsKind, "")
	s.keeps = func(o metav1.Object) bool { return inProgress(o) || i.isRecent(o) }
	if client := i.controller.clients.Metadata; client != nil {
		s.ListWatch = listWatch(client.Resource(migrationsResource))
	}
	return s
}
