package fake

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

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
	return Program{Reconcile: c.Reconcile, Namespace: namespaceOfObject}, nil
}

// Migration returns the caches as package migration takes them.
func (c Caches) Migration() migration.Caches {
	return migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](c.Migrations),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](c.VMIs),
		Pods:        migration.FromIndexer[corev1.Pod](c.Pods),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](c.LimitRanges),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](c.Claims),
		Events:      migration.FromIndexer[corev1.Event](c.Events),
		Namespace:   migration.FromStore(c.Namespaces),
	}
}

// namespaceOfObject returns the namespace that an event of object concerns: that of
// migration.NamespaceOf, or that of a record of the ConfigMap ledger.
func namespaceOfObject(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	if record, ok := object.(*corev1.ConfigMap); ok {
		return record.Labels[configmap.Label]
	}
	return migration.NamespaceOf(object)
}
