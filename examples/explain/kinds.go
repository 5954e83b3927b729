package main

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// companions are kinds that one finds beside quotas and virtual machines and that
// say nothing about what a migration charges. In the groups of the kinds that are
// read they are listed one by one, so that a misspelt kind is not passed over.
var companions = map[string][]string{
	"": {
		"ConfigMap", "Endpoints", "Node", "PersistentVolume",
		"ReplicationController", "Secret", "Service", "ServiceAccount",
	},
	"kubevirt.io": {"KubeVirt", "VirtualMachine", "VirtualMachineInstanceReplicaSet"},
}

// passedOver tells whether objects of the kind are skipped, with a note. All other
// unknown kinds are errors.
func passedOver(gvk schema.GroupVersionKind) bool {
	if kinds, ok := companions[gvk.Group]; ok {
		return slices.Contains(kinds, gvk.Kind)
	}
	return slices.Contains([]string{"apps", "autoscaling", "batch", "policy"}, gvk.Group) ||
		strings.HasSuffix(gvk.Group, ".k8s.io") || strings.HasSuffix(gvk.Group, ".kubevirt.io")
}
