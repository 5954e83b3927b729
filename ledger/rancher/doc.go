// Package rancher runs headroom in Rancher's process, beside its quota controller.
//
// Rancher's controller writes static limits to spec.hard of the ResourceQuota of each
// namespace, and since Rancher 2.14.6 and 2.15.2 its webhook refuses that to everybody else.
// Headroom enforces effective limits in status.hard, which that webhook leaves open. Neither
// writes the other's field, so Rancher's controller stays as it is.
//
// # The shim
//
// [Start] is the one call, for one downstream cluster:
//
//	_, err := rancher.Start(ctx, rancher.Config{Client: cluster.K8sClient, Now: time.Now})
//
// It enforces what the migrations in the ledger need (package applier). The ledger is in
// ConfigMaps in a namespace of the downstream cluster (package configmap). A process there
// that sees the migrations, such as Harvester, writes it, and needs no rights on
// ResourceQuotas.
//
// Where that namespace does not exist and the cluster serves KubeVirt's API, Config.Own
// enforces the cluster's own migrations. Package migration has it:
//
//	Own: func(ctx context.Context) error {
//		return migration.Run(ctx, &cluster.RESTConfig, migration.Options{DisabledFor: rancher.HarvesterSkips})
//	}
//
// The ledger and Own are never used at the same time. The cluster is asked once a minute
// (Config.Probe) which of them to use. A cluster that has neither costs two requests a minute
// and no informer. The namespace also keeps Own away from a cluster in which another process
// enforces.
//
// A shim is bound to its context. A start that Rancher cancels and repeats leaves no goroutine
// and no cache behind, and what ends by itself is started again. While Config.Disabled is true
// nothing is written, and kube-controller-manager resets what was raised.
//
// # What it needs
//
// In the downstream cluster: get of namespaces, get, list and watch of resourcequotas, update
// of resourcequotas/status, and get, list and watch of configmaps in the namespace of the
// ledger. Config.Own needs the role of package migration. No impersonation is needed.
//
// # Asked for, static, enforced
//
// Three limits can differ. What was asked for in Rancher is an annotation of the Namespace
// ([Limits]). What Rancher gave is spec.hard, which is less where the project has no room
// for what was asked ([NotGiven]). What counts for a new pod is status.hard: static, and on top what
// the migrations in flight need.
//
// # After an old Harvester
//
// Before this library Harvester raised spec.hard by itself, and it may have left annotations
// and a raised limit behind. None of them has an effect on headroom, which takes spec.hard
// as it is. [CleanNamespace] removes them.
package rancher
