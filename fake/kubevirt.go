package fake

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

const virtControllerUser = "virt-controller"

// KubeVirt's defaults.
const (
	parallelMigrations = 5 // per cluster
	parallelOutbound   = 2 // per node
	keptMigrations     = 5 // ended ones of a VMI that are not collected
)

// A virtController is KubeVirt's virt-controller (v1.9): it runs VMIs in virt-launcher pods, walks migrations
// through their phases, and evacuates drained nodes.
type virtController struct {
	*Cluster
	vmis        *queue
	migrations  *queue
	evacuations *queue // of nodes that are drained
	recorder    *recorder

	overhead int64 // of memory, in bytes
	outcomes map[types.UID]Outcome
	expected map[string]int // pods that were created and not heard of yet, by migration
}

func newVirtController(c *Cluster) *virtController {
	k := &virtController{
		Cluster:  c,
		recorder: &recorder{Cluster: c, correlator: record.NewEventCorrelator(&c.clock)},
		overhead: 270 << 20,
		outcomes: map[types.UID]Outcome{},
		expected: map[string]int{},
	}
	k.vmis = newQueue(&c.clock, k.syncVMI)
	k.migrations = newQueue(&c.clock, k.syncMigration)
	k.evacuations = newQueue(&c.clock, k.evacuate)
	return k
}

func (k *virtController) observe(c change) {
	switch o := c.object().(type) {
	case *kubevirtv1.VirtualMachineInstanceMigration:
		k.wake(o)
		k.wakeEvacuations()
	case *kubevirtv1.VirtualMachineInstance:
		k.wakeVMI(key(o))
		k.wakeAll(o.Namespace, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return m.Spec.VMIName == o.Name })
	case *corev1.Pod:
		if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == "VirtualMachineInstance" {
			k.wakeVMI(o.Namespace + "/" + owner.Name)
		}
		m, ok := find[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, o.Namespace, o.Annotations[kubevirtv1.MigrationJobNameAnnotation])
		if ok && string(m.UID) == o.Labels[kubevirtv1.MigrationJobLabel] {
			k.wake(m)
		}
		k.wakeEvacuations()
	case *corev1.PersistentVolumeClaim:
		m, ok := find[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, o.Namespace, o.Labels[kubevirtv1.MigrationNameLabel])
		if ok && c.before == nil {
			k.wake(m)
		}
	case *corev1.ResourceQuota:
		// An update of any kind, or a deletion; a new quota wakes nobody.
		if c.before != nil {
			k.wakeAll(o.Namespace, hasRefusal)
		}
	}
}

// wake lets m be looked at when an event arrives. An earlier look does not do: it may come before quota
// admission knows what the event tells.
func (k *virtController) wake(m *kubevirtv1.VirtualMachineInstanceMigration) {
	name := key(m)
	k.clock.after(k.draw(k.config.Timing.Wake), func() { k.migrations.add(name, 0) })
}

func (k *virtController) wakeAll(namespace string, which func(*kubevirtv1.VirtualMachineInstanceMigration) bool) {
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, namespace) {
		if which(m) {
			k.wake(m)
		}
	}
}

func (k *virtController) wakeVMI(name string) { k.vmis.add(name, k.draw(k.config.Timing.Wake)) }

// hasRefusal reports whether m has the condition, which stays on failed ones.
func hasRefusal(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return hasCondition(m, kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota)
}

// refused reports whether quota refuses the target pod of m.
func refused(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return m.Status.Phase == kubevirtv1.MigrationPending && hasRefusal(m)
}

func hasCondition(m *kubevirtv1.VirtualMachineInstanceMigration, t kubevirtv1.VirtualMachineInstanceMigrationConditionType) bool {
	return slices.ContainsFunc(m.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return c.Type == t })
}

// setCondition says on m whether t holds, and returns that.
func (k *virtController) setCondition(m *kubevirtv1.VirtualMachineInstanceMigration, t kubevirtv1.VirtualMachineInstanceMigrationConditionType, holds bool) bool {
	is := func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return c.Type == t }
	if !holds {
		m.Status.Conditions = slices.DeleteFunc(m.Status.Conditions, is)
	} else if !slices.ContainsFunc(m.Status.Conditions, is) {
		m.Status.Conditions = append(m.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: t, Status: corev1.ConditionTrue, LastProbeTime: k.stamp()})
	}
	return holds
}

// current returns the pod that vmi runs in: the youngest on its node; nil if there is none.
func (k *virtController) current(vmi *kubevirtv1.VirtualMachineInstance) *corev1.Pod {
	var current *corev1.Pod
	for _, pod := range k.store.podsOf(vmi) {
		if vmi.Status.NodeName == "" || vmi.Status.NodeName == pod.Spec.NodeName {
			current = pod
		}
	}
	return current
}

// active returns how many pods of vmi have not ended.
func (k *virtController) active(vmi *kubevirtv1.VirtualMachineInstance) int {
	return len(slices.DeleteFunc(k.store.podsOf(vmi), ended))
}

// target returns the target pod of m, nil if there is none.
func (k *virtController) target(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) *corev1.Pod {
	for _, pod := range k.store.podsOf(vmi) {
		if pod.Labels[kubevirtv1.MigrationJobLabel] == string(m.UID) {
			return pod
		}
	}
	return nil
}

// ready reports whether a launcher can be handed to virt-handler.
func ready(pod *corev1.Pod) bool {
	return pod != nil && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil
}

// hotplugs reports whether vmi has volumes that an attachment pod brings.
func hotplugs(vmi *kubevirtv1.VirtualMachineInstance) bool {
	return slices.ContainsFunc(vmi.Spec.Volumes, func(v kubevirtv1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.Hotpluggable || v.DataVolume != nil && v.DataVolume.Hotpluggable
	})
}

// createPod creates a pod of vmi, for a migration unless that is nil, or tells in an event why not. The migration
// controller waits until it hears of those for migrations.
func (k *virtController) createPod(vmi *kubevirtv1.VirtualMachineInstance, pod *corev1.Pod, m *kubevirtv1.VirtualMachineInstanceMigration, failure string) error {
	if m != nil {
		pod.Labels[kubevirtv1.MigrationJobLabel] = string(m.UID)
		pod.Annotations[kubevirtv1.MigrationJobNameAnnotation] = m.Name
	}
	claim := k.backendClaim(vmi)
	if m != nil {
		claim = cmp.Or(k.targetClaim(m), claim)
	}
	if claim != nil && pod.Labels[kubevirtv1.AppLabel] == "virt-launcher" {
		source := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}
		pod.Spec.Volumes = []corev1.Volume{{Name: persistentState, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: source}}}
	}
	k.sleep()
	if _, err := k.create(virtControllerUser, pod); err != nil {
		k.recorder.failedCreate(vmi, failure, err)
		return err
	}
	if m != nil {
		name := key(m)
		k.expected[name]++
		k.clock.after(k.draw(k.config.Timing.Wake), func() {
			if k.expected[name]--; k.expected[name] == 0 {
				delete(k.expected, name)
			}
		})
	}
	return nil
}

// deletePods deletes the pods that are there, and not being deleted already: the kubelet does the rest.
func (k *virtController) deletePods(pods []*corev1.Pod) error {
	for _, pod := range pods {
		if pod == nil || pod.DeletionTimestamp != nil {
			continue
		}
		k.sleep()
		if err := k.discard(Pods, pod.Namespace, pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// discard deletes an object, if it is there.
func (k *virtController) discard(kind Kind, namespace, name string) error {
	if err := k.remove(virtControllerUser, kind, namespace, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// An Outcome is how a migration goes once its target pod is there. The zero Outcome is success.
type Outcome struct {
	Fail bool // it fails instead
	Hang bool // it stays in Running until it is aborted
	// Linger is for how long the source pod runs on after success; 0: Timing.Linger.
	Linger time.Duration
}

func (k *virtController) outcome(m *kubevirtv1.VirtualMachineInstanceMigration) Outcome {
	o, known := k.outcomes[m.UID]
	if !known && k.config.Outcome != nil {
		o = k.config.Outcome(m)
		k.outcomes[m.UID] = o
	}
	return o
}
