// Package migration reads KubeVirt's objects, computes which live migrations are in flight
// and what each of them charges twice, and enforces the limits that follow from that.
//
// A [Controller] is all of it, and [Run] runs one in one call:
//
//	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
//	...
//	err = migration.Run(ctx, config, migration.Options{})
//
// [InFlight] is the part without I/O: a pure, total function of a [Snapshot] of a namespace. It
// needs no history of events, so an event that was missed cannot leak anything.
//
// # What a Controller does
//
// For each namespace in which something has happened it computes the migrations in flight,
// replaces the record in a ledger, which is in memory by default, has an applier.Applier
// write status.hard of the ResourceQuotas, and nudges KubeVirt where it sleeps although
// there is room: an annotation on the VirtualMachineInstanceMigration.
//
// With its own informers it watches quotas, namespaces, LimitRanges, the events of refused pods
// and the metadata of migrations in the whole cluster. Migrations, pods and VMIs it watches only
// in namespaces that have a quota and a migration in flight, until a minute after the last one,
// claims only where a VMI has backend storage, and ResourceClaims, DeviceClasses and the events
// of refused ResourceClaims only where a virt-launcher pod has claims from templates: who has
// none needs no right on them. Objects are trimmed to what the library reads (see [Trim]). With
// the embedder's informers ([Options].Caches) it holds nothing of its own.
//
// It starts without KubeVirt, and waits for its custom resources. Leader election is the
// embedder's: Start on every replica, Work on the leader. A leader whose [Controller.Synced]
// returns an error should give up its Lease. Nothing is written but status.hard, the nudge and
// events, and after a restart everything is read again.
//
// # What can go wrong
//
// A write that RBAC, a webhook or a policy refuses is an event and a metric, is no error of
// Reconcile, and is tried again with a back-off. A server that is away is one line in the
// log a minute. A cache of pods that is late is a line in the log and in the [Report].
//
// # Events and logs
//
//	HeadroomRaised    on a quota: its enforced limits are raised, for the first time since it was at rest
//	HeadroomRestored  on a quota: its enforced limits are the static ones, and no migration concerns it
//	HeadroomGranted   on a migration: a quota has room for its target pod
//	HeadroomWaiting   on a migration: what it has waited for, for two seconds; once for each reason (see [Waiting])
//	Nudged            on a migration: KubeVirt was woken
//
// Package applier has more, on quotas. Each write is a line in the log.
//
// # What it needs
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: ClusterRole
//	metadata: {name: headroom}
//	rules:
//	- {apiGroups: [""], resources: [resourcequotas], verbs: [get, list, watch]}
//	- {apiGroups: [""], resources: [resourcequotas/status], verbs: [update]}
//	- {apiGroups: [""], resources: [namespaces, pods, persistentvolumeclaims, limitranges], verbs: [list, watch]}
//	- {apiGroups: [""], resources: [events], verbs: [list, watch, create, patch]}
//	# for virtual machines with ResourceClaims from templates
//	- {apiGroups: [resource.k8s.io], resources: [resourceclaims, deviceclasses], verbs: [list, watch]}
//	- {apiGroups: [kubevirt.io], resources: [virtualmachineinstances], verbs: [list, watch]}
//	- {apiGroups: [kubevirt.io], resources: [virtualmachineinstancemigrations], verbs: [list, watch, patch]}
//
// # Whose pods
//
// A virtual machine instance (VMI) runs in a virt-launcher pod. To migrate it because of a
// VirtualMachineInstanceMigration (VMIM), KubeVirt creates a second one, the target, with the
// UID of the VMIM in the label kubevirt.io/migrationJobUID. The label stays when the migration
// is over. So which of two pods is the one too many is read from the VMI's
// status.migrationState and from the phase of the VMIM, never from the label alone.
package migration
