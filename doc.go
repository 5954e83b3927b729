// Package headroom keeps a Kubernetes namespace's ResourceQuota right while
// KubeVirt virtual machines live-migrate.
//
// A live migration runs two virt-launcher pods for one virtual machine. On a full
// ResourceQuota the API server refuses the second one, so the migration stops, and
// with it the node drain or the upgrade that asked for it. Headroom computes what
// the limits must be meanwhile, from three things: the static limits that the tenant
// was given, the migrations in flight, and the usage. Everybody who writes the quota
// computes the same, so nobody undoes the other's work.
//
// This package has no code. It is the door to the others:
//
//   - [github.com/vmquota/headroom/quota] is the rule. It is pure: Effective
//     returns the limits, Policy adds a budget, Footprint says what quota charges for
//     a pod.
//   - [github.com/vmquota/headroom/ledger] is the record of the migrations in flight,
//     by namespace: an interface, and the suite that each of its backends passes. These
//     are packages below it, as is what writes the quotas (applier) and the work queue
//     that looks at namespaces (loop).
//   - [github.com/vmquota/headroom/migration] reads KubeVirt's objects: InFlight tells
//     which migrations are in flight and what each of them charges twice. A Keeper is
//     all that a controller does about a namespace; its example is a whole controller.
//   - [github.com/vmquota/headroom/fake] is a simulated cluster for the tests of an
//     embedder. The examples are programs that run.
//
// They import each other to the left only:
//
//	quota <- ledger <- migration
//
// # How data flows
//
//	VMIs, VMIMs, pods          ledger             ResourceQuota
//	------------------  ->  ------------  ->  ---------------------
//	migration.InFlight      Replace, then     quota.Effective
//	(where KubeVirt is)     Migrations        (where the quota is written)
//
// Where one controller sees both sides, the ledger is not needed:
//
//	inFlight := migration.InFlight(migration.Snapshot{
//		Migrations: vmims, VMIs: vmis, Pods: pods, LimitRanges: limitRanges, PVCs: pvcs,
//	})
//	quotaCopy.Spec.Hard = quota.Effective(static, quota.Under(rq, inFlight), rq.Status.Used)
//
// Static are the limits as the tenant was given them, which are not those in
// spec.hard while a migration is in flight.
package headroom
