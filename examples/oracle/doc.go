// Package oracle holds package quota to what Kubernetes does: its tests ask the
// evaluators of the API server and of kube-controller-manager, on random pods,
// claims and quotas, what quota charges for an object and which quotas select it,
// and compare the answers.
//
// It has no code of its own.
package oracle
