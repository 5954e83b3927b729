package fake

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// adminUser is who the methods of Cluster act for.
const adminUser = "admin"

// CreateNamespace creates a namespace, and in it a quota of that name with the limits hard, which is their
// static value. Nil: without a quota. A pod that comes in the first milliseconds may be missing in status.used
// until the quota controller counts all usage anew, after five minutes: admission charges for no quota of which its
// cache shows no status yet, and a new pod asks for no recount. So it is on a real API server.
func (c *Cluster) CreateNamespace(name string, hard corev1.ResourceList) error {
	_, err := c.create(adminUser, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err != nil || hard == nil {
		return err
	}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	_, err = c.create(adminUser, rq)
	return err
}

// CreateVMI starts a virtual machine; see [NewVMI]. It runs after some seconds, if quota lets its pod in. Its
// volumes may be hot-pluggable claims, and it may persist a TPM or EFI variables: what that costs is simulated
// too.
func (c *Cluster) CreateVMI(vmi *kubevirtv1.VirtualMachineInstance) error {
	_, err := c.create(adminUser, vmi)
	return err
}

// DeleteVMI stops a virtual machine.
func (c *Cluster) DeleteVMI(namespace, name string) error {
	return c.remove(adminUser, VMIs, namespace, name, metav1.DeleteOptions{})
}

// VMI returns a virtual machine as it is in the API server; nil if there is none.
func (c *Cluster) VMI(namespace, name string) *kubevirtv1.VirtualMachineInstance {
	o, _ := find[*kubevirtv1.VirtualMachineInstance](&c.store, namespace, name)
	return o.DeepCopy()
}

// Migrate creates a VirtualMachineInstanceMigration of that name for a VMI, which goes as outcome says.
func (c *Cluster) Migrate(namespace, name, vmi string, outcome Outcome) error {
	m, err := c.create(adminUser, newMigration(namespace, name, vmi))
	if err != nil {
		return err
	}
	c.virt.outcomes[m.GetUID()] = outcome
	return nil
}

// CreateMigration is Migrate for a VirtualMachineInstanceMigration that the test has made.
func (c *Cluster) CreateMigration(m *kubevirtv1.VirtualMachineInstanceMigration) error {
	_, err := c.create(adminUser, m)
	return err
}

// Abort deletes a VirtualMachineInstanceMigration, which aborts the migration.
func (c *Cluster) Abort(namespace, name string) error {
	return c.remove(adminUser, Migrations, namespace, name, metav1.DeleteOptions{})
}

// Migration returns a VirtualMachineInstanceMigration as it is in the API server; nil if there is none.
func (c *Cluster) Migration(namespace, name string) *kubevirtv1.VirtualMachineInstanceMigration {
	o, _ := find[*kubevirtv1.VirtualMachineInstanceMigration](&c.store, namespace, name)
	return o.DeepCopy()
}

// Quota returns a ResourceQuota as it is in the API server; nil if there is none.
func (c *Cluster) Quota(namespace, name string) *corev1.ResourceQuota {
	o, _ := find[*corev1.ResourceQuota](&c.store, namespace, name)
	return o.DeepCopy()
}

// EditQuota changes spec.hard of a ResourceQuota, the static limits.
func (c *Cluster) EditQuota(namespace, name string, change func(hard corev1.ResourceList)) error {
	rq := c.Quota(namespace, name)
	if rq == nil {
		return apierrors.NewNotFound(ResourceQuotas.groupResource(), name)
	}
	change(rq.Spec.Hard)
	_, err := c.update(adminUser, rq, false)
	return err
}

var errNotRunning = errors.New("a hot-plug needs a running VMI")

// HotPlug changes the sockets and the memory of the guest of a running VMI, and creates the migration that
// carries it out, as KubeVirt's workload updater does. The target pod is rendered with the new size.
func (c *Cluster) HotPlug(namespace, name string, sockets uint32, guest resource.Quantity) error {
	vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&c.store, namespace, name)
	if !ok || !vmi.IsRunning() || vmi.Spec.Domain.CPU == nil || vmi.Spec.Domain.Memory == nil {
		return fmt.Errorf("VMI %s/%s: %w", namespace, name, errNotRunning)
	}
	write(c, adminUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		domain := &vmi.Spec.Domain
		if old := *domain.CPU; old.Sockets != sockets {
			vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Sockets: old.Sockets, Cores: old.Cores, Threads: old.Threads}
			domain.CPU.Sockets = sockets
			c.requireChange(vmi, kubevirtv1.VirtualMachineInstanceVCPUChange)
		}
		if old := domain.Memory.Guest; old != nil && old.Cmp(guest) != 0 {
			domain.Memory.Guest = pointer(guest.DeepCopy())
			domain.Resources.Requests[corev1.ResourceMemory] = guest.DeepCopy()
			c.requireChange(vmi, kubevirtv1.VirtualMachineInstanceMemoryChange)
		}
	})
	m := newMigration(namespace, "", name)
	m.GenerateName = "kubevirt-workload-update-"
	m.Annotations = map[string]string{kubevirtv1.WorkloadUpdateMigrationAnnotation: ""}
	m.Spec.Priority = pointer(kubevirtv1.PriorityUserTriggered)
	_, err := c.create(virtControllerUser, m)
	return err
}

// SetUtilityVolumes attaches volumes to a VMI as a backup tool does, and detaches those that it had before.
// While there are any, KubeVirt creates no target pod. That it gives a migration up after a while is not
// simulated.
func (c *Cluster) SetUtilityVolumes(namespace, name string, volumes ...string) error {
	vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&c.store, namespace, name)
	if !ok || !vmi.IsRunning() {
		return fmt.Errorf("VMI %s/%s: %w", namespace, name, errNotRunning)
	}
	write(c, adminUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.Spec.UtilityVolumes = nil
		for _, volume := range volumes {
			vmi.Spec.UtilityVolumes = append(vmi.Spec.UtilityVolumes, kubevirtv1.UtilityVolume{Name: volume})
		}
	})
	return nil
}

// SetBackup begins or ends a backup of a VMI. While there is one, KubeVirt creates target pods and starts no
// migration, and says nothing of refusals by quota.
func (c *Cluster) SetBackup(namespace, name string, inProgress bool) error {
	vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&c.store, namespace, name)
	if !ok || !vmi.IsRunning() {
		return fmt.Errorf("VMI %s/%s: %w", namespace, name, errNotRunning)
	}
	write(c, adminUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.Status.ChangedBlockTracking = &kubevirtv1.ChangedBlockTrackingStatus{
			State:        kubevirtv1.ChangedBlockTrackingDisabled,
			BackupStatus: &kubevirtv1.VirtualMachineInstanceBackupStatus{BackupName: "backup", Completed: !inProgress},
		}
	})
	return nil
}

// RefusePods lets another admission plugin refuse all new pods of a namespace in these words, as the
// ClusterResourceQuota of OpenShift does in those of a ResourceQuota. Empty: it lets them in again.
func (c *Cluster) RefusePods(namespace, message string) { c.refusals[namespace] = message }

func (c *Cluster) requireChange(vmi *kubevirtv1.VirtualMachineInstance, t kubevirtv1.VirtualMachineInstanceConditionType) {
	setVMICondition(vmi, kubevirtv1.VirtualMachineInstanceCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: c.stamp()})
}

// SetMemoryOverhead changes how much memory KubeVirt adds to every virt-launcher pod that it renders from now
// on, as another overhead ratio does. It is 270 MiB at first.
func (c *Cluster) SetMemoryOverhead(bytes int64) { c.virt.overhead = bytes }
