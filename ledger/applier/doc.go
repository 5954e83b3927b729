// Package applier enforces the limits that the rule says: for a namespace, it reads the
// migrations in flight from a ledger and the ResourceQuotas with their usage, and makes
// status.hard of every quota what it must be now. It never writes spec.hard, which is the
// static limit and stays its owner's. It has no goroutines, no clock and no controller
// framework: whoever embeds it calls [Applier.Apply].
//
//	a, err := applier.New(applier.Config{Ledger: ledger, Quotas: client.CoreV1(), Now: time.Now})
//	...
//	result, err := a.Apply(ctx, namespace)
//
// # Why status.hard
//
// The API defines status.hard as the set of enforced hard limits, and quota admission reads
// nothing else. kube-controller-manager sets it back to spec.hard whenever it recounts the
// quota: when a counted object ends, when the spec changes, and every five minutes. So a
// raise ends by itself, whatever happens to this process, and nothing has to be restored.
//
// # What is enforced
//
// The surge of charged migrations is on top of the static limits for as long as it is charged,
// also if they fitted without it: regular workloads keep what they had. A migration without a
// target pod gets its surge on top while it has an offer. With neither, status.hard is spec.hard.
// Resources that spec.hard does not limit are never added, a limit of zero is a limit, and a
// resource that kube-controller-manager has not counted yet is left to it.
//
// # Offers
//
// An offer is room that is open for a target pod which has not come. It is made to two
// migrations at a time, because KubeVirt creates one pod after the other, and to no more than
// KubeVirt can start (see [Parallel]), in KubeVirt's order. It ends when the pod is charged, and
// lapses after one second. A lapsed offer is made again when a migration ends anywhere in the
// cluster, and after pauses of 2 s, 4 s and so on up to a minute. If more migrations run than
// KubeVirt was thought to run, the limit is learned; one offer at a time beyond the limit, with
// pauses that grow from 10 s to 5 min, finds that out.
//
// No offer is made that cannot help: where a quota in the way is switched off or may not be
// written, where a quota that is none of the namespace has refused the target pod, where the
// budget does not last, where the guest grows by more than the static limits have left. A target
// pod has to pass all quotas that see it, so there is room in all of those that are in its way,
// or in none; the other quotas stay closed. The deferred migrations are in Decision.Deferred.
//
// # When it is written
//
// At once: room for a target pod, the surge of a target pod that has come, the end of an
// offer. What only charged migrations need is written again 100 ms after a recount has reset it,
// and no more often than once a second. What they no longer need is taken away by
// kube-controller-manager together with the usage, or after 150 ms by this package. So a
// migration that fits costs one write, and one that is refused one (with [Config].Guard three).
//
// # Recounts
//
// Usage falls only when kube-controller-manager recounts, and it can seem to have fallen for
// regular workloads when it has not: the caches may still show a pod that has ended, and a
// recount misses a target pod that the API server has not stored yet. So for 100 ms after a
// recount regular workloads get no more room than before it. If usage then still lacks as much as
// a target pod that came at that time charges, that is kept back until the next recount, for five
// minutes at most.
//
// # What is taken
//
// Until its pod comes, any pod may take the room of an offer. [OfferAnnotation] lets an
// admission policy keep them out. What regular workloads take above static does not lift the
// limit, uses the budget up, and is recorded in an event after a second. It ends when usage falls.
//
// One theft as large as the largest waiting surge is forgiven, so that it does not stop a
// drain; from then on there is one offer at a time in the namespace. So regular workloads never
// hold more above static than the surges of two migrations (Parallel.Open), and of those that
// have ended and that the ledger still has at that moment. Then the waiting migrations are
// deferred, as RegularAboveStatic.
//
// Regular usage that was above static before the offer lifts the limit: static was lowered,
// or overhead grew. If usage rises above static while there is no room for it, no offer is
// made until that has stood for a second: it may be the source pod of a migration that has
// ended, which kube-controller-manager has not recounted yet.
//
// # Others who write
//
// Every update carries the resourceVersion of the quota that it was computed from. A
// conflict is resolved on fresh data. A write that is refused by RBAC, a webhook or a policy is an
// [ErrForbidden], and is tried again after 0.5 s, 1 s and so on up to 5 minutes, or when the
// quota (its labels, annotations or spec) or the policy of the namespace has changed.
//
// With [DisabledAnnotation] on a quota, Config.DisabledFor or Config.Disabled nothing is written
// any more. kube-controller-manager restores.
//
// Offers, what was taken, pauses, and what was told in events are only in memory, and lost with
// a restart.
//
// # Events and logs
//
// Events are on the ResourceQuota. Each write and what an event tells is logged by the
// logger that klog.FromContext finds in the context of Apply.
//
//	HeadroomRefused   a write was refused; once until one succeeds
//	HeadroomTaken     regular workloads have taken room that was open for target pods
//	HeadroomDeferred  other migrations than before wait, or for other reasons
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
//	  verbs: [get, list, watch]
//	- apiGroups: [""]
//	  resources: [resourcequotas/status]
//	  verbs: [update]
//
// List is used if there is no Config.List, get after conflicts; watch, and list, are for
// the cache behind Config.List and for whoever calls Apply on events. The recorder of
// events needs create and patch of events. The ledger has needs of its own.
package applier
