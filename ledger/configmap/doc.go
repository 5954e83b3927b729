// Package configmap is a ledger in ConfigMaps: one for each tenant namespace that has
// migrations in flight, all of them in one system namespace, where no tenant may edit them.
//
// # What is stored
//
// The ConfigMap is called headroom-<tenant namespace> and has that namespace in the
// label [Label], by which all of them are listed:
//
//	$ kubectl -n headroom get configmap -L headroom.vmquota.io/namespace \
//	    -l headroom.vmquota.io/namespace
//
// It has one data key for each migration, its UID, with a value that a person reads:
//
//	$ kubectl -n headroom get configmap headroom-tenant -o yaml
//	data:
//	  0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001: |-
//	    {
//	      "version": 1,
//	      "uid": "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
//	      "vmi": "database",
//	      "state": "Blocked",
//	      "since": "2026-08-03T14:05:06Z",
//	      "surge": {
//	        "limits.cpu": "1015m"
//	      }
//	    }
//
// Where "held" is absent, none of the surge is in the usage of the quota, or all of it
// if the state is Charged; {} means none. A namespace without migrations has no
// ConfigMap.
//
// # Writing
//
// A change is one write: create, update, or delete. It carries the resourceVersion of
// what it was computed from, and is computed anew from fresh data if that is outdated.
// An entry that does not change keeps its bytes. Nothing is written if nothing changes.
//
// A ConfigMap takes 1 MiB, which some 2,000 migrations in one namespace reach. Those that
// have not come far are left out then, and told with [ErrTooLarge]. An amount that nobody can
// read again, such as 1e999, is left out alone.
//
// # Reading
//
// With [WithInformer] nothing is read from the API server as long as the informer's cache is
// synced. Where it is older than what this Ledger has read or written, that goes before it. So a
// Replace is never taken for superfluous because of a cache that has not seen the one before it.
// It may be if another process has changed the record since: whoever writes should reconcile a
// namespace again when [Ledger.OnChange] names it.
//
// # What cannot be read
//
// An entry that is corrupt or of another version is an [Error] that names the key, inside
// of a ledger.ErrPartial; beside it, Migrations returns all that it could read. The next
// Replace replaces it, whether it knows the migration or not: it knows what is in flight.
//
// # What it needs
//
// A namespace, and this Role in it. Without an informer, list and watch are not used.
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: Role
//	metadata:
//	  name: headroom-ledger
//	  namespace: headroom
//	rules:
//	- apiGroups: [""]
//	  resources: [configmaps]
//	  verbs: [get, list, watch, create, update, delete]
//
// Who only reads needs get, list and watch. Nobody else should have more than that: who
// can write here can raise quotas.
package configmap
