//go:build !kubevirt_1_8

package main

import "kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"

// Plugins came with KubeVirt 1.9.
func init() {
	definitions = append(definitions, components.NewPluginCrd)
}
