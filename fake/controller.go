package fake

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// Controller returns a program that is a migration.Controller on the client and the caches of
// p. Of options it sets those that a real one finds for itself, and a recorder that drops
// events if there is none.
func (p *Process) Controller(options migration.Options) (Program, error) {
	caches := p.Caches.Migration()
	options.Caches, options.Quotas = &caches, migration.FromIndexer[corev1.ResourceQuota](p.Caches.ResourceQuotas)
	options.Patch, options.Now, options.Enqueue = p.PatchMigration, p.Now, p.Enqueue
	if options.Recorder == nil {
		options.Recorder = &record.FakeRecorder{}
	}
	c, err := migration.NewController(migration.Clients{Core: p.Client}, options)
	if err != nil {
		return Program{}, err
	}
	return Program{Reconcile: c.Reconcile, Namespace: NamespaceOf}, nil
}

// NamespaceOf is a Program.Namespace like that of a real controller: migration.NamespaceOf,
// and of a record of the ledger in ConfigMaps its tenant namespace.
func NamespaceOf(object any) string {
	if record, ok := undeleted(object).(*corev1.ConfigMap); ok {
		return record.Labels[configmap.Label]
	}
	return migration.NamespaceOf(object)
}

func undeleted(object any) any {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		return tombstone.Obj
	}
	return object
}

// anyNamespace is the default of Program.Namespace.
func anyNamespace(o any) string {
	switch o := undeleted(o).(type) {
	case *corev1.Namespace:
		return o.Name
	case *corev1.ConfigMap:
		return ""
	case object:
		return o.GetNamespace()
	default:
		return ""
	}
}
