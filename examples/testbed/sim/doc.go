// Package sim plays what a control plane without nodes lacks: the scheduler, kubelets,
// and KubeVirt's virt-handler and virt-launcher. Pods are bound, start, and end;
// virtual machine instances boot, are handed over from node to node, and shut down.
//
// It writes what those write, and nothing else: bindings and status of pods, nodes,
// and, of a VirtualMachineInstance, what virt-handler reports. It never creates a pod,
// and never writes a VirtualMachineInstanceMigration: that is virt-controller's.
//
// # What can be made to go wrong
//
// Annotations say so. On a VirtualMachineInstance they hold for all its migrations, on
// a VirtualMachineInstanceMigration for that one, and they can be changed at any time:
//
//	testbed.headroom.vmquota.io/migration: hang      it stays in Running
//	testbed.headroom.vmquota.io/migration: fail      it fails once it is in Running
//	testbed.headroom.vmquota.io/linger: 3s           the losing pod takes so long to end
//	testbed.headroom.vmquota.io/linger: forever      the losing pod does not end
//
// and on a Node:
//
//	testbed.headroom.vmquota.io/dead: "true"         nothing on it moves any more
//
// A real kubelet kills a pod that is deleted when its grace period is over, so one that
// lingers still ends when it is deleted.
//
// # Nodes that die
//
// A node that is dead becomes not ready and unreachable, and no pod is put on it; that
// much is the node lifecycle controller's part, which is played too. Its pods stay as
// they are. Nobody evicts them: who wants them gone deletes the Node, and Kubernetes'
// own pod garbage collector removes them, or deletes them by force.
//
// # Drains
//
// Drain gives a node the taint that KubeVirt evacuates nodes for. The real
// virt-controller then creates a migration for every virtual machine instance on it.
package sim
