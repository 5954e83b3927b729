// Package migration reads KubeVirt's objects and tells which live migrations are
// in flight, and what each of them charges twice.
//
// [InFlight] is a pure, total function of what informers hold about a namespace.
// It is level-triggered: it needs no history of events, so whatever was missed
// while nobody looked cannot leak.
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
