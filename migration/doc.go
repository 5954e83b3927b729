// Package migration reads KubeVirt's objects and tells which live migrations are
// in flight, and what each of them charges twice.
//
// [InFlight] is a pure, total function of what informers hold about a namespace.
// It is level-triggered: it needs no history of events, so whatever was missed
// while nobody looked cannot leak.
//
// Around it are the parts of a controller. An [Observer] writes the result to a ledger. A
// [Nudger] wakes KubeVirt where it sleeps although quota has room. A [Keeper] calls both,
// and between them an applier.Applier, which writes the quotas. None of them has
// goroutines, watches anything itself or knows a controller framework: they read the
// [Caches] of informers that are there anyway, and are called with the name of a namespace
// from a work queue, which may be a loop.Loop. They log by the logger that
// klog.FromContext finds in the context of the call.
//
// # Whose pods
//
// A virtual machine instance (VMI) runs in a virt-launcher pod. To migrate it
// because of a VirtualMachineInstanceMigration (VMIM), KubeVirt creates a second
// one, the target, which carries the UID of the VMIM in the label
// kubevirt.io/migrationJobUID. The label stays when the migration is over, so the
// source of the next migration carries the UID of the one before. Which of two pods
// is the one too many is therefore read from the VMI's status.migrationState and
// from the phase of the VMIM, never from the label alone.
package migration
