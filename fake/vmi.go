package fake

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/virthandler"
)

// syncVMI is KubeVirt's VMI controller: it creates the first pod of a VMI, keeps its attachment pods, and
// deletes the pods with it.
func (k *virtController) syncVMI(name string) (time.Duration, error) {
	vmi, ok := findKey[*kubevirtv1.VirtualMachineInstance](&k.store, name)
	if !ok {
		return 0, nil
	}
	failed := k.syncPods(vmi)
	pod := k.current(vmi)
	k.sleep()
	write(k.Cluster, virtControllerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		k.setVMIStatus(vmi, pod, failed)
	})
	return 0, failed
}

func (k *virtController) syncPods(vmi *kubevirtv1.VirtualMachineInstance) error {
	launchers := k.store.podsOf(vmi)
	if vmi.DeletionTimestamp != nil {
		return k.deletePods(launchers)
	}
	for _, launcher := range launchers {
		if ended(launcher) || vmi.IsFinal() { // its attachment pods are orphaned
			if err := k.deletePods(k.store.podsOf(launcher)); err != nil {
				return err
			}
		}
	}
	pod := k.current(vmi)
	switch {
	case vmi.IsFinal():
	case pod == nil && vmi.IsUnprocessed():
		if persists(vmi) && k.backendClaim(vmi) == nil {
			if err := k.createClaim(vmi, persistentState, vmi.Name); err != nil {
				return err
			}
		}
		return k.createPod(vmi, k.sourceLauncher(vmi), nil, "Error creating pod: %v")
	case ready(pod) && vmi.IsRunning() && hotplugs(vmi) && len(k.store.podsOf(pod)) == 0:
		return k.createPod(vmi, attachment(pod), nil, "Error creating attachment pod: %v")
	}
	return nil
}

// backendClaim returns the claim that vmi uses, nil if there is none.
func (k *virtController) backendClaim(vmi *kubevirtv1.VirtualMachineInstance) *corev1.PersistentVolumeClaim {
	return k.claim(vmi.Namespace, persistentState, vmi.Name)
}

// claim returns the claim with a label that is not being deleted, nil if there is none.
func (k *virtController) claim(namespace, label, value string) *corev1.PersistentVolumeClaim {
	for _, claim := range all[*corev1.PersistentVolumeClaim](&k.store, namespace) {
		if claim.Labels[label] == value && claim.DeletionTimestamp == nil {
			return claim
		}
	}
	return nil
}

// setVMIStatus writes what the VMI controller knows of vmi: pod is the one that it runs in, failed what went
// wrong with its pods.
func (k *virtController) setVMIStatus(vmi *kubevirtv1.VirtualMachineInstance, pod *corev1.Pod, failed error) {
	vmi.Status.ActivePods = nil
	for _, launcher := range k.store.podsOf(vmi) {
		if vmi.Status.ActivePods == nil {
			vmi.Status.ActivePods = map[types.UID]string{}
		}
		vmi.Status.ActivePods[launcher.UID] = launcher.Spec.NodeName
	}
	k.setReady(vmi, pod)
	k.setSynchronized(vmi, failed)
	if claim := k.backendClaim(vmi); claim != nil {
		setBackendVolume(vmi, claim)
	}
	if pod != nil {
		if vmi.Status.Memory == nil {
			vmi.Status.Memory = &kubevirtv1.MemoryStatus{}
		}
		vmi.Status.Memory.MemoryOverhead = overheadOf(pod)
	}
	k.setPhase(vmi, pod)
	if vmi.IsFinal() && len(k.store.podsOf(vmi)) == 0 {
		vmi.Finalizers = nil
	}
}

func (k *virtController) setPhase(vmi *kubevirtv1.VirtualMachineInstance, pod *corev1.Pod) {
	phase := vmi.Status.Phase
	switch {
	case vmi.IsUnprocessed() && pod != nil:
		phase = kubevirtv1.Scheduling
	case vmi.IsUnprocessed() && vmi.DeletionTimestamp != nil:
		phase = kubevirtv1.Failed
	case vmi.IsUnprocessed():
		phase = kubevirtv1.Pending
	case vmi.IsScheduling() && (pod == nil || ended(pod)):
		phase = kubevirtv1.Failed
	case vmi.IsScheduling() && ready(pod):
		phase = kubevirtv1.Scheduled
		vmi.Status.NodeName = pod.Spec.NodeName
		metav1.SetMetaDataLabel(&vmi.ObjectMeta, kubevirtv1.NodeNameLabel, pod.Spec.NodeName)
	case !vmi.IsFinal() && !vmi.IsScheduling() && (pod == nil || ended(pod)) && vmi.DeletionTimestamp == nil:
		phase = kubevirtv1.Failed
	}
	virthandler.Enter(vmi, phase, k.stamp())
}

func (k *virtController) setReady(vmi *kubevirtv1.VirtualMachineInstance, pod *corev1.Pod) {
	condition := kubevirtv1.VirtualMachineInstanceCondition{
		Type: kubevirtv1.VirtualMachineInstanceReady, Status: corev1.ConditionTrue, LastTransitionTime: k.stamp(),
	}
	switch {
	case pod == nil || pod.DeletionTimestamp != nil || ended(pod):
		condition.Status, condition.Reason = corev1.ConditionFalse, kubevirtv1.PodTerminatingReason
	case !vmi.IsRunning():
		condition.Status, condition.Reason = corev1.ConditionFalse, kubevirtv1.GuestNotRunningReason
	}
	setVMICondition(vmi, condition)
}

// setSynchronized says why vmi has no pod: quota, usually. The words of the first failure stay as long as it
// fails for the same reason (CheckFailure in KubeVirt's pkg/controller), or each failure would be a change of
// the VMI that asks for the next try.
func (k *virtController) setSynchronized(vmi *kubevirtv1.VirtualMachineInstance, failed error) {
	if failed == nil {
		virthandler.RemoveCondition(vmi, kubevirtv1.VirtualMachineInstanceSynchronized)
		return
	}
	if vmiCondition(vmi, kubevirtv1.VirtualMachineInstanceSynchronized) != nil {
		return
	}
	setVMICondition(vmi, kubevirtv1.VirtualMachineInstanceCondition{
		Type: kubevirtv1.VirtualMachineInstanceSynchronized, Status: corev1.ConditionFalse, Reason: "FailedCreate",
		Message: failed.Error(), LastTransitionTime: k.stamp(),
	})
}

// overheadOf returns the memory overhead that pod was rendered with.
func overheadOf(pod *corev1.Pod) *resource.Quantity {
	bytes, err := strconv.ParseInt(pod.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes], 10, 64)
	if err != nil {
		return nil
	}
	return resource.NewQuantity(bytes, resource.BinarySI)
}

func setBackendVolume(vmi *kubevirtv1.VirtualMachineInstance, claim *corev1.PersistentVolumeClaim) {
	volume := kubevirtv1.VolumeStatus{Name: persistentState, PersistentVolumeClaimInfo: &kubevirtv1.PersistentVolumeClaimInfo{
		ClaimName: claim.Name, AccessModes: claim.Spec.AccessModes,
	}}
	is := func(v kubevirtv1.VolumeStatus) bool { return v.Name == persistentState }
	vmi.Status.VolumeStatus = append(slices.DeleteFunc(vmi.Status.VolumeStatus, is), volume)
}

func vmiCondition(vmi *kubevirtv1.VirtualMachineInstance, t kubevirtv1.VirtualMachineInstanceConditionType) *kubevirtv1.VirtualMachineInstanceCondition {
	for i := range vmi.Status.Conditions {
		if vmi.Status.Conditions[i].Type == t {
			return &vmi.Status.Conditions[i]
		}
	}
	return nil
}

// setVMICondition sets a condition, whose times change only if its status does.
func setVMICondition(vmi *kubevirtv1.VirtualMachineInstance, condition kubevirtv1.VirtualMachineInstanceCondition) {
	old := vmiCondition(vmi, condition.Type)
	if old == nil {
		vmi.Status.Conditions = append(vmi.Status.Conditions, condition)
		return
	}
	if old.Status == condition.Status {
		condition.LastTransitionTime = old.LastTransitionTime
	}
	*old = condition
}
