// Package applier writes what the rule says: for a namespace, it reads the migrations in
// flight from a ledger and the ResourceQuotas with their usage, and makes spec.hard of
// every quota that the migrations touch what it must be now. It has no goroutines, no
// clock and no controller framework: whoever embeds it calls [Applier.Apply].
//
// # What is written, and when
//
// A migration that fits into the limits as they are costs no write, unless it stays
// refused; see below. The first one that does not raises the quota: spec.hard becomes the effective limits, and the same update
// records the static limits in the annotation [StaticAnnotation] and what was applied in
// [AppliedAnnotation]. From then on spec.hard follows the effective limits, up and down,
// until nothing is granted any more. Then it is what it was, byte for byte, and both
// annotations are gone. So a migration that is blocked costs two writes, and there is no
// moment at which a crash leaves a raised quota without its static limits.
//
// Resources that the static limits do not have are never added, and a limit of zero is a
// limit. While the quota is raised anybody may edit it: what differs from the applied
// limits is new static (quota.Rebase), at once.
//
// KubeVirt can make use of a raise when status.hard shows it; see [Reached].
//
// # Room that does not help
//
// The target pod of a guest that grows by hot-plug is charged its growth beside the surge,
// and no ledger says how much that is. So there may be room for the surge in the limits as
// they are, and the pod is refused all the same. Therefore a granted migration that stays
// refused for five seconds raises the limits by its surge, as if there were no room:
// growth that fits static fits then, and growth that does not stays refused. A nudge (see
// migration.Nudger) ends before that what has merely lost a race. Result.RetryAfter says
// when to look again; after a restart the five seconds begin anew.
//
// # Usage that runs ahead
//
// The API server charges a target pod before the pod is stored. So for some milliseconds
// the usage has a pod of which the ledger still says that it is blocked, and the rule
// would take it for regular usage and raise by one surge more. Therefore regular usage
// that comes to be above static while a quota is raised is looked at for one second:
// meanwhile the limits are left as they are, if they are enough for the case that it is
// made of the granted target pods, and Result.RetryAfter says when to look again. What
// is still there after that second is regular usage: limits follow it, and it is reported
// as taken. The price is that a migration whose room was taken is helped a second later.
// What is charged is covered all the time.
//
// # Others who write
//
// Every update carries the resourceVersion of what it was computed from. A conflict is
// resolved on fresh data.
//
// A second writer that knows the static limits only, like Rancher before its shim, resets
// a raise. The raise is made again at once, and if it is reset again, after pauses of 1 s,
// 2 s and so on up to a minute, so that a writer that reacts to its own changes comes to
// rest. Two minutes without a reset, and the next one is the first again.
//
// A write that is refused by RBAC, a webhook or a policy is an [ErrForbidden], and is
// tried again after 5 s, 10 s and so on up to 5 minutes, or when the quota (its labels,
// annotations or spec) or the policy of the namespace has changed.
//
// If an annotation has been tampered with, the static limits are not known. Then the quota
// is left alone, neither raised nor lowered, and Apply returns an [ErrUnreadable] that
// names it: limits that cover what is charged stay, and no raised limit becomes a static
// one unnoticed. A person repairs the annotation; or sets spec.hard to the static limits
// and removes both annotations, because a quota without them is one whose spec.hard is
// static.
//
// # Switching it off
//
// The annotation [DisabledAnnotation] on one quota, Config.DisabledFor, or Config.Disabled
// for all: no limit is raised any more, not even to undo a reset. What is raised stays as
// far as charged migrations need it, follows them down, and ends at static.
//
// # Guarding a raise
//
// Until the target pod comes, any pod may take the room that was made for it. Config.Guard
// publishes what an admission policy needs to keep it; see [GuardAnnotation].
//
// # Budgets
//
// The Budget of a namespace's policy and Config.Budget for all of them together cap the
// surge for which limits are raised. Whatever is charged counts, and is never taken back.
// Who waits, and why, is in Decision.Deferred. A migration that waits in one quota is
// granted in no other quota of its namespace, unless it has room there as it is.
//
// The global budget is counted in memory. After a restart it knows of a namespace when
// Apply was called for it, so call it for all before the first migration is granted, or
// grants may exceed the budget until then by what was granted before the restart. It is
// counted by this process alone: of several replicas one should apply (leader election).
// Namespaces that wait for it are asked to call again every second, and lose their turn
// if they do not for a minute.
//
// # What is remembered
//
// Only in memory, and lost with a restart: the pauses, what of the usage is settled (so
// what was taken before is not reported), since when somebody is refused in spite of room,
// and what was told in events. When limits are written depends on it, but not which.
//
// # Events and logs
//
// What an event tells is logged too, and each write at verbosity 2, by the logger that
// klog.FromContext finds in the context of Apply.
//
//	HeadroomRefused     a write was refused; once until one succeeds
//	HeadroomReset       another writer has reset a raise
//	HeadroomTaken       regular usage came to be above static while the quota was raised
//	HeadroomDeferred    other migrations than before wait, or for other reasons
//	HeadroomUnreadable  the annotations cannot be read; once for each content of them
//
// # What it needs
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: ClusterRole
//	metadata:
//	  name: headroom-applier
//	rules:
//	- apiGroups: [""]
//	  resources: [resourcequotas]
//	  verbs: [get, list, watch, update]
//
// List is used if there is no Config.List, get after conflicts; watch, and list, are for
// the cache behind Config.List and for whoever calls Apply on events. The recorder of
// events needs create and patch of events. The ledger has needs of its own.
package applier
