package scenario

import (
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// A Cluster is what one scenario is played on: a namespace for it, and the library at
// work in a process. If the scenario is Recorded, the ledger is in ConfigMaps. What the
// cluster refuses to do fails T.
type Cluster interface {
	try.T
	// Client is an administrator's. It need not have watches, nor the kinds of KubeVirt.
	Client() kubernetes.Interface
	// Namespace is the scenario's own; it is there already.
	Namespace() string

	CreateVMI(vmi *kubevirtv1.VirtualMachineInstance)
	DeleteVMI(name string)
	CreateMigration(m Migrate)
	DeleteMigration(name string)
	HotPlug(h HotPlug)
	// SetUtilityVolumes attaches these to a VM, and detaches all others.
	SetUtilityVolumes(vm string, volumes ...string)
	SetBackup(vm string, inProgress bool)
	// RefusePods has another admission plugin than quota's refuse all new pods in these words;
	// empty: it lets them in again.
	RefusePods(message string)
	Drain(node string)
	Undrain(node string)
	// SetOverhead changes what KubeVirt adds to the pods that it renders from now on.
	SetOverhead(overhead Overhead)
	// DeleteNamespace deletes it with all that is in it.
	DeleteNamespace()

	// State is what the API server holds now.
	State() State
	// Until waits until done of the State, and reports whether it was in reasonable time.
	Until(done func(State) bool) bool
	// Rest lets pass as much time as it takes to see whether anything still moves.
	Rest()
	// Writes is how often the library has written the status of quotas of the namespace so far.
	Writes() int
}
