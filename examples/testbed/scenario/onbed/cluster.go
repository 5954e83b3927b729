package onbed

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// A Cluster is a namespace of a [Stage].
type Cluster struct {
	stage      *Stage
	namespace  string
	configured bool
}

var _ scenario.Cluster = (*Cluster)(nil)

// Client implements scenario.Cluster.
func (c *Cluster) Client() kubernetes.Interface { return c.stage.Client }

// Namespace implements scenario.Cluster.
func (c *Cluster) Namespace() string { return c.namespace }

// CreateVMI implements scenario.Cluster.
func (c *Cluster) CreateVMI(ctx context.Context, vmi *kubevirtv1.VirtualMachineInstance) error {
	_, err := virt.VMIs(c.stage.Objects, c.namespace).Create(ctx, vmi)
	return err
}

// DeleteVMI implements scenario.Cluster.
func (c *Cluster) DeleteVMI(ctx context.Context, name string) error {
	return virt.VMIs(c.stage.Objects, c.namespace).Delete(ctx, name)
}

// CreateMigration implements scenario.Cluster.
func (c *Cluster) CreateMigration(ctx context.Context, m scenario.Migrate) error {
	if m.Linger != "" {
		// On the VM as well, because it has to hold after the migration is deleted.
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, sim.LingerAnnotation, m.Linger)
		if _, err := virt.VMIs(c.stage.Objects, c.namespace).Patch(ctx, m.VM, patch); err != nil {
			return err
		}
	}
	vmim := virt.NewVMIM(c.namespace, m.Name, m.VM)
	for name, value := range map[string]string{sim.MigrationAnnotation: m.Goes, sim.LingerAnnotation: m.Linger} {
		if value != "" { // which would go before that of the VM
			metav1.SetMetaDataAnnotation(&vmim.ObjectMeta, name, value)
		}
	}
	_, err := virt.VMIMs(c.stage.Objects, c.namespace).Create(ctx, vmim)
	return err
}

// DeleteMigration implements scenario.Cluster.
func (c *Cluster) DeleteMigration(ctx context.Context, name string) error {
	return virt.VMIMs(c.stage.Objects, c.namespace).Delete(ctx, name)
}

// HotPlug changes the VMI as KubeVirt's VM controller does when the VM is changed.
func (c *Cluster) HotPlug(ctx context.Context, h scenario.HotPlug) error {
	patch := fmt.Sprintf(`{"spec":{"domain":{"memory":{"guest":%[1]q,"maxGuest":%[1]q},"resources":{"requests":{"memory":%[1]q}}}}}`, h.Memory.String())
	_, err := virt.VMIs(c.stage.Objects, c.namespace).Patch(ctx, h.VM, patch)
	return err
}

// SetUtilityVolumes changes the VMI as a backup tool does. Their claims do not exist, so they
// are never there in the guest.
func (c *Cluster) SetUtilityVolumes(ctx context.Context, vm string, volumes ...string) error {
	spec := make([]map[string]string, 0, len(volumes))
	for _, volume := range volumes {
		spec = append(spec, map[string]string{"name": volume, "claimName": volume})
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"utilityVolumes": spec}})
	if err != nil {
		return err
	}
	_, err = virt.VMIs(c.stage.Objects, c.namespace).Patch(ctx, vm, string(patch))
	return err
}

// Drain implements scenario.Cluster.
func (c *Cluster) Drain(ctx context.Context, node string) error {
	return c.stage.Bed.Simulator().Drain(ctx, node)
}

// Undrain implements scenario.Cluster.
func (c *Cluster) Undrain(ctx context.Context, node string) error {
	return c.stage.Bed.Simulator().Undrain(ctx, node)
}

// overheadRatio is the name in KubeVirt's configuration.
const overheadRatio = "additionalGuestMemoryOverheadRatio"

// SetOverhead implements scenario.Cluster.
func (c *Cluster) SetOverhead(ctx context.Context, overhead scenario.Overhead) error {
	c.configured = true
	return c.stage.Configure(ctx, map[string]any{overheadRatio: overhead.Ratio})
}

// DeleteNamespace implements scenario.Cluster.
func (c *Cluster) DeleteNamespace(ctx context.Context) error {
	return c.stage.Client.CoreV1().Namespaces().Delete(ctx, c.namespace, metav1.DeleteOptions{})
}

// State implements scenario.Cluster.
func (c *Cluster) State(context.Context) (scenario.State, error) {
	return c.stage.watch.state(c.namespace)
}

// patience is for how long something is awaited.
const patience = 90 * time.Second

// Until implements scenario.Cluster.
func (c *Cluster) Until(ctx context.Context, done func(scenario.State) bool) (bool, error) {
	for end := time.Now().Add(patience); ; {
		s, err := c.State(ctx)
		switch {
		case err != nil:
			return false, err
		case done(s):
			return true, nil
		case time.Now().After(end):
			return false, nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return false, err
		}
	}
}

// Rest implements scenario.Cluster. What the library does without an event, it does
// after a second.
func (c *Cluster) Rest(ctx context.Context) error { return sleep(ctx, 1500*time.Millisecond) }

// Writes implements scenario.Cluster.
func (c *Cluster) Writes(context.Context) (int, error) {
	events, err := c.Audit()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range events {
		if Wrote(e) {
			n++
		}
	}
	return n, nil
}

// Wrote reports whether e is a write of the process under test to a quota that was carried
// out.
func Wrote(e bed.AuditEvent) bool {
	return (e.User == User || e.User == OtherUser) && e.Resource == "resourcequotas" && e.Code < 300
}

// Refused reports whether e is a target pod, or another one, that quota refused.
func Refused(e bed.AuditEvent) bool {
	return e.Verb == "create" && e.Resource == "pods" && e.Subresource == "" && e.Code == 403 && strings.Contains(e.Message, "exceeded quota")
}

// Audit returns what the API server has logged about the namespace.
func (c *Cluster) Audit() ([]bed.AuditEvent, error) {
	all, err := c.stage.Bed.Audit()
	if err != nil {
		return nil, err
	}
	var own []bed.AuditEvent
	for _, e := range all {
		if e.Namespace == c.namespace {
			own = append(own, e)
		}
	}
	return own, nil
}

// Close takes back what the scenario has changed outside of its namespace, and deletes
// that.
func (c *Cluster) Close(ctx context.Context) error {
	if c.configured {
		if err := c.stage.Configure(ctx, map[string]any{overheadRatio: nil}); err != nil {
			return err
		}
	}
	err := c.DeleteNamespace(ctx)
	if s, known := c.stage.watch.state(c.namespace); known == nil && s.Namespace == nil {
		return nil // it was the scenario's to delete it
	}
	return err
}
