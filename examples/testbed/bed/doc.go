// Package bed runs a real control plane with a real KubeVirt controller, with no
// container runtime: etcd, kube-apiserver, kube-controller-manager and virt-controller,
// each a process of its own on a loopback address of its own.
//
// Start builds what is missing, starts everything, and installs what virt-operator
// would install. Nodes, kubelets and virt-handlers are simulated by package sim. A bed
// can be told to kill one of its processes, and to start it again. Several beds can
// run side by side.
//
// # What is not real
//
//   - Nodes, the scheduler, kubelets, virt-handler and virt-launcher; see package sim.
//   - virt-api. What its webhook adds to a VirtualMachineInstanceMigration is added by a
//     MutatingAdmissionPolicy; what it adds to a VirtualMachineInstance, package virt
//     adds before it creates one. Nothing that it would refuse is refused.
//   - virt-operator.
//
// It needs Linux and Go.
package bed
