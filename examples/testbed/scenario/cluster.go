package scenario

import (
	"context"

	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A Cluster is what one scenario is played on: a namespace for it, and the library at
// work in a process. If the scenario is Recorded, the ledger is in ConfigMaps.
type Cluster interface {
	// Client is an administrator's. It need not have watches, nor the kinds of KubeVirt.
	Client() kubernetes.Interface
	// Namespace is the scenario's own; it is there already.
	Namespace() string

	CreateVMI(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance) error
	DeleteVMI(ctx context.Context, name string) error
	CreateMigration(ctx context.Context, m Migrate) error
	DeleteMigration(ctx context.Context, name string) error
	HotPlug(ctx context.Context, h HotPlug) error
	// SetUtilityVolumes attaches these to a VM, and detaches all others.
	SetUtilityVolumes(ctx context.Context, vm string, volumes ...string) error
	Drain(ctx context.Context, node string) error
	Undrain(ctx context.Context, node string) error
	// SetOverhead changes what KubeVirt adds to the pods that it renders from now on.
	SetOverhead(ctx context.Context, overhead Overhead) error
	// DeleteNamespace deletes it with all that is in it.
	DeleteNamespace(ctx context.Context) error

	// State is what the API server holds now.
	State(ctx context.Context) (State, error)
	// Until waits until done of the State, and reports whether it was in reasonable time.
	Until(ctx context.Context, done func(State) bool) (bool, error)
	// Rest lets pass as much time as it takes to see whether anything still moves.
	Rest(ctx context.Context) error
	// Writes is how often the library has written the status of quotas of the namespace so far.
	Writes(ctx context.Context) (int, error)
}
