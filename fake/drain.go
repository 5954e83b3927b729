package fake

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Drain empties a node: no pod is put on it any more, its VMIs are marked as the eviction of their pods does,
// and KubeVirt creates a migration for each of them, and another one if that fails.
func (c *Cluster) Drain(node string) {
	c.note("node %s is drained", node)
	c.nodes.cordoned[node] = true
	c.setEvacuation(node, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Status.NodeName == node })
	c.virt.evacuations.add(node, 0)
}

// Uncordon ends a drain. Migrations that exist go on.
func (c *Cluster) Uncordon(node string) {
	c.note("node %s is in service again", node)
	delete(c.nodes.cordoned, node)
	c.setEvacuation("", func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Status.EvacuationNodeName == node })
}

func (c *Cluster) setEvacuation(node string, which func(*kubevirtv1.VirtualMachineInstance) bool) {
	for _, vmi := range all[*kubevirtv1.VirtualMachineInstance](&c.store, "") {
		if which(vmi) {
			write(c, virtControllerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Status.EvacuationNodeName = node })
		}
	}
}

func (k *virtController) wakeEvacuations() {
	for _, node := range k.nodes.names {
		if k.nodes.cordoned[node] {
			k.evacuations.add(node, k.draw(k.config.Timing.Wake))
		}
	}
}

// evacuate is KubeVirt's evacuation controller: it migrates each VMI that is to leave the node, unless it is
// migrating or has two pods still.
func (k *virtController) evacuate(node string) (time.Duration, error) {
	if !k.nodes.cordoned[node] {
		return 0, nil
	}
	migrating := map[string]bool{}
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, "") {
		if !m.IsFinal() {
			migrating[m.Namespace+"/"+m.Spec.VMIName] = true
		}
	}
	for _, vmi := range all[*kubevirtv1.VirtualMachineInstance](&k.store, "") {
		if vmi.Status.NodeName != node || vmi.Status.EvacuationNodeName != node || !vmi.IsRunning() || vmi.DeletionTimestamp != nil ||
			migrating[key(vmi)] || k.active(vmi) > 1 {
			continue
		}
		m := newMigration(vmi.Namespace, "", vmi.Name)
		m.GenerateName = "kubevirt-evacuation-"
		m.Annotations = map[string]string{kubevirtv1.EvacuationMigrationAnnotation: node}
		m.Spec.Priority = pointer(kubevirtv1.PrioritySystemCritical)
		if _, err := k.create(virtControllerUser, m); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func newMigration(namespace, name, vmi string) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:  namespace,
			Name:       name,
			Labels:     map[string]string{kubevirtv1.MigrationSelectorLabel: vmi},
			Finalizers: []string{kubevirtv1.VirtualMachineInstanceMigrationFinalizer},
		},
		Spec: kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi},
	}
}

const firstEvacuationPause = 20 * time.Second

// evacuationPause returns for how long the latest migration by an evacuation or a workload update has to wait,
// because those of the same VMI before it failed.
func (k *virtController) evacuationPause(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) time.Duration {
	if !automatic(m) {
		return 0
	}
	earlier := slices.DeleteFunc(all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, m.Namespace), func(other *kubevirtv1.VirtualMachineInstanceMigration) bool {
		return other.Spec.VMIName != vmi.Name || !automatic(other) || other.UID == m.UID
	})
	slices.SortStableFunc(earlier, func(a, b *kubevirtv1.VirtualMachineInstanceMigration) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
	})
	if len(earlier) == 0 || earlier[0].CreationTimestamp.After(m.CreationTimestamp.Time) {
		return 0
	}
	pause := time.Duration(0)
	for _, other := range earlier {
		if other.Status.Phase == kubevirtv1.MigrationSucceeded {
			break
		}
		if other.Status.Phase == kubevirtv1.MigrationFailed && other.DeletionTimestamp == nil {
			pause = max(2*pause, firstEvacuationPause)
		}
	}
	for _, t := range earlier[0].Status.PhaseTransitionTimestamps {
		if t.Phase == kubevirtv1.MigrationFailed && pause > 0 {
			return t.PhaseTransitionTimestamp.Add(pause).Sub(k.clock.now)
		}
	}
	return 0
}

func automatic(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
	_, evacuation := m.Annotations[kubevirtv1.EvacuationMigrationAnnotation]
	_, update := m.Annotations[kubevirtv1.WorkloadUpdateMigrationAnnotation]
	return evacuation || update
}
