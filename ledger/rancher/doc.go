// Package rancher is the shim for Rancher, or for any other controller that knows static
// limits only and writes them to ResourceQuotas again and again.
//
// Rancher's quota controller compares spec.hard with the limits that it wants, and sets its
// own if they differ: on every event of a namespace, and for all namespaces whenever the
// tunnel of an agent comes back. So it undoes every raise, and since its webhook locks the
// quotas (2.14.6, 2.15.2) nobody else can raise them at all. Behind a [Shim] the same
// controller, unchanged, does neither: what it reads is static, and what it writes becomes
// static and what the migrations in flight need.
//
// # What to change
//
// A Shim decorates what the controller is given: [Shim.Client], [Shim.Lister],
// [Shim.Informer] for client-go's types; for other shapes [Shim.Shown] is every read,
// [Shim.Stored] every create and update, [Shim.Patch] every patch, and [Shim.Watch] and
// [Shim.Handler] what is told. The adapter for wrangler's types is one file, in
// examples/rancher, and its README has the change to Rancher, line by line.
//
// Beside the decorators an applier runs in the same process, with the same undecorated,
// privileged client, and raises and lowers when the ledger changes ([Shim.Applier], called by
// a loop.Loop). It is needed: a change of the ledger is no event of a namespace, and if it
// were, the controller would find the limits that it wants and write nothing.
//
// # What holds
//
//   - Limits that the controller wants and has are not written, through any number of
//     restarts, relists and resyncs.
//   - A change of the limits is written at once, as static and surge, in one update together
//     with the annotation that says what is static ([applier.StaticAnnotation]).
//   - An update carries the resourceVersion that the controller had. If the quota was raised
//     since then, it gets a conflict, as it would from anybody, and tries again.
//   - A quota that is deleted and created anew is raised as it is created: the migrations are
//     in the ledger, not on the quota.
//   - A limit of zero is one. It is raised for a migration in flight like any other, and shown
//     as zero.
//   - Nothing is ever written to a Namespace. What Rancher adds up for a project stays what
//     it was.
//   - Two processes that do all this at once come to the same limits.
//
// # What it costs
//
// A read of a quota that is not raised is a look at two annotations: no copy, no
// allocation. A raised one is copied, and its annotations are decoded. A write reads the
// ledger, which is a read of an informer's cache (configmap.WithInformer). The applier
// writes twice for each migration that is blocked.
//
// # What it needs
//
// For the applier get, list, watch and update of resourcequotas, which Rancher has; if the
// write lock is on, as the user whom it lets through. For the ledger get, list and watch of
// configmaps in the system namespace. Whoever sees the migrations writes there, and has no
// rights on quotas. A takeover also needs get of namespaces, and create and update of
// configmaps there.
//
// # Switching it off
//
// Config.Disabled, or the environment variable [DisabledVariable], asked at every call. Then
// reads show what is stored, and what is written is written as it is, without the
// annotations of a raise: so the next sync brings every quota back to static. The applier
// has the same switch: it raises nothing, and restores the quotas that nothing syncs as soon
// as nothing is charged.
//
// To go back to a Rancher without the shim, switch off, restart, wait for the sync, and put
// the old version in place. Without that the old version resets spec.hard by itself, at the
// next event of each namespace, but two annotations stay, which mean nothing any more. To
// roll out, put the new version in place: what it finds is static, unless an old Harvester
// has raised it.
//
// # After an old Harvester
//
// Before this library Harvester raised quotas by itself, with annotations of its own
// ([ReadHarvester]). Three ways lead from there:
//
//   - Where nothing locks the quotas, Harvester itself takes over, with a [Takeover] before
//     its applier (examples/harvester), before the shim comes. Nothing is lost.
//   - Where they are locked, and every Harvester has the library, Rancher's process does:
//     Config.Takeover, and a Takeover with Seed before the applier. What an entry claims
//     stays raised until the new Harvester has looked.
//   - Otherwise the shim does not count what an old Harvester has raised. The controller
//     finds other limits than it wants and writes its own, as it would without the shim, and
//     what the ledger says, if somebody writes that already. Target pods that run are not
//     hurt; one that is blocked stays so until its migration is in the ledger. The reason is
//     that behind the lock an old Harvester cannot take its entries away: they would count
//     for ever.
//
// HarvesterSkip is honoured by the decorators and by the applier ([HarvesterSkips]).
//
// # How to see that it works
//
// A quota that is raised has its static limits beside it, and the ledger says for what:
//
//	$ kubectl -n tenant get resourcequota -o yaml | grep headroom.vmquota.io/
//	$ kubectl -n headroom get configmap -l headroom.vmquota.io/namespace=tenant -o yaml
//
// What the limits should be, and why:
//
//	$ go run github.com/vmquota/headroom/examples/explain -n tenant
//
// # What it does not do
//
//   - It does not tell what the static limits are: the controller does, by writing them.
//     [Limits] reads what was asked for, which may be something else.
//   - The decorators do not know a budget over all namespaces, applier.Config.Budget. A
//     namespace's quota.Policy counts. So where a migration waits for that budget, or for the one
//     of another quota in its namespace, a change of the limits by the controller may grant it;
//     the applier takes that back with its next look.
//   - It does not raise a quota of which the ledger cannot be read: a write is refused, and the
//     controller tries again. If a part cannot be read (ledger.ErrPartial), raises stay.
//   - Server-side apply, and JSON patches of the limits, are refused with ErrUntranslatable.
//     Rancher sends neither.
package rancher
