// Package scenario plays small stories about a namespace with quotas and migrating
// virtual machines on a [Cluster], and tells how they end. A scenario is a YAML file:
//
//	about: One VM fills its quota exactly, and migrates.
//	steps:
//	- quota: {name: q, hard: {limits.cpu: 1015m, limits.memory: "2773714688"}}
//	- vm: {name: vm1, cores: 1, memory: 1Gi}
//	- migrate: {name: m1, vm: vm1}
//	end:
//	  migrations: {m1: Succeeded}
//	  writesAtMost: 2
//
// Every scenario has a namespace of its own. Its steps are taken one after the other, and
// a step that waits says for what. Then it is waited until everything is as end says,
// and until nothing moves any more.
//
// Whatever the scenario, in the end spec.hard and status.hard of every quota are to be the
// static limits to the byte, with no annotation of the library, and the ledger without a
// record of the namespace. The static limits are those that the file gave the quota last.
//
// The two clusters are package onfake, which is simulated, and package onbed, which is a
// real control plane. An [End] is the same on both, or one of them is wrong.
package scenario
