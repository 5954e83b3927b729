// Command kubevirt is KubeVirt's virt-controller, unmodified, and a generator of what
// virt-operator would install for it. Its commands are
//
//	kubevirt virt-controller FLAG...      with virt-controller's own flags
//	kubevirt manifests                    prints a List of CRDs and RBAC as JSON
package main

import (
	"fmt"
	"os"

	"kubevirt.io/kubevirt/pkg/virt-controller/watch"
)

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
		os.Args = os.Args[1:] // what a command calls itself, and its flags
	}
	switch command {
	case "virt-controller":
		watch.Execute()
	case "manifests":
		if err := printManifests(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "manifests:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: kubevirt virt-controller FLAG... | manifests")
		os.Exit(2)
	}
}
