// Package headroom lets KubeVirt virtual machines live-migrate in a namespace whose
// ResourceQuota is full.
//
// A live migration runs two virt-launcher pods for one virtual machine. On a full
// ResourceQuota the API server refuses the second one, so the migration stops, and
// with it the node drain or the upgrade that asked for it. Headroom computes what must be
// enforced meanwhile from three things: the static limits (spec.hard), the migrations
// in flight, and the usage. It writes that to status.hard, which the API defines as the
// enforced hard limits and which is all that quota admission reads. It never writes
// spec.hard. kube-controller-manager resets status.hard whenever it recounts a quota, so a
// raise ends by itself, whatever happens to headroom.
//
// This package has no code. It is the door to the others:
//
//   - [github.com/vmquota/headroom/quota] is the rule. It is pure: Effective
//     returns the limits, Policy adds a budget, Footprint says what quota charges for
//     a pod.
//   - [github.com/vmquota/headroom/migration] reads KubeVirt's objects: InFlight returns
//     the migrations in flight and what each of them charges twice. A Controller is all
//     of the library, and Run runs one in one call.
//   - [github.com/vmquota/headroom/ledger] is the record of the migrations in flight,
//     by namespace: an interface, and packages below it. Package applier makes offers and
//     writes status.hard; its Plan says what it would do and why. Package rancher is the
//     same for Rancher's process, and loop the work queue.
//   - [github.com/vmquota/headroom/fake] is a simulated cluster for the tests of an
//     embedder. The examples are programs that run.
//
// They import each other to the left only:
//
//	quota <- ledger <- migration
//
// # How data flows
//
//	VMIs, VMIMs, pods          ledger              ResourceQuota
//	------------------  ->  ------------  ->  ------------------------
//	migration.InFlight      Replace, then     applier: offers, then
//	(where KubeVirt is)     Migrations        UpdateStatus (status.hard)
//
// One process does all of it with a ledger in memory. Without offers and patience it is
//
//	inFlight := migration.InFlight(migration.Snapshot{
//		Migrations: vmims, VMIs: vmis, Pods: pods, LimitRanges: limitRanges, PVCs: pvcs,
//	})
//	rq.Status.Hard = quota.Effective(rq.Spec.Hard, quota.Under(rq, inFlight), rq.Status.Used)
//
// followed by UpdateStatus. What regular workloads take of such room would lift the limit
// for good; the applier prevents that.
package headroom
