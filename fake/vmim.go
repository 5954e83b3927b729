package fake

import (
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

var errBusy = errors.New("vmi is ineligible for migration because another migration job is running")

// syncMigration is one round of KubeVirt's migration controller (pkg/virt-controller/watch/migration, v1.9).
func (k *virtController) syncMigration(name string) (time.Duration, error) {
	m, ok := findKey[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, name)
	if !ok {
		return 0, nil
	}
	if m.Annotations[kubevirtv1.ControllerAPILatestVersionObservedAnnotation] == "" {
		return 0, k.adopt(m)
	}
	vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&k.store, m.Namespace, m.Spec.VMIName)
	if !ok {
		if m.DeletionTimestamp != nil {
			return 0, nil
		}
		k.sleep()
		return 0, k.discard(Migrations, m.Namespace, m.Name)
	}
	target := k.target(m, vmi)
	var again time.Duration
	var failed error
	if k.expected[name] == 0 {
		again, failed = k.proceed(m, vmi, target)
	}
	if err := k.updateMigration(m, vmi, target, failed); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	if m.IsFinal() {
		k.wakePending()
		return 0, k.collectMigrations(vmi)
	}
	return again, nil
}

// adopt is what virt-controller does to a VMIM that it sees for the first time. It wants to see the annotations
// before it works on the VMIM.
func (k *virtController) adopt(m *kubevirtv1.VirtualMachineInstanceMigration) error {
	m = m.DeepCopy()
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, kubevirtv1.ControllerAPILatestVersionObservedAnnotation, kubevirtv1.ApiLatestVersion)
	metav1.SetMetaDataAnnotation(&m.ObjectMeta, kubevirtv1.ControllerAPIStorageVersionObservedAnnotation, kubevirtv1.ApiStorageVersion)
	if m.Labels[kubevirtv1.MigrationSelectorLabel] == "" {
		metav1.SetMetaDataLabel(&m.ObjectMeta, kubevirtv1.MigrationSelectorLabel, m.Spec.VMIName)
	}
	k.sleep()
	_, err := k.update(virtControllerUser, m, false)
	return err
}

// proceed does what the migration needs next; again is when to look again without an event.
func (k *virtController) proceed(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod) (again time.Duration, err error) {
	state := vmi.Status.MigrationState
	mine := state != nil && state.MigrationUID == m.UID
	switch {
	case vmi.DeletionTimestamp != nil, mine && state.Completed, m.IsDecentralized():
		return 0, nil
	case !k.eligible(m, vmi):
		return 0, errBusy
	}
	switch m.Status.Phase {
	case kubevirtv1.MigrationPending:
		return k.proceedPending(m, vmi, target)
	case kubevirtv1.MigrationScheduling:
		if m.DeletionTimestamp != nil {
			return 0, k.deletePods([]*corev1.Pod{target})
		}
		return k.timeOut(target)
	case kubevirtv1.MigrationScheduled:
		if m.DeletionTimestamp != nil && !mine {
			return 0, k.deletePods([]*corev1.Pod{target})
		}
		if ready(target) && !mine {
			return 0, k.handOff(m, vmi, target)
		}
	case kubevirtv1.MigrationPreparingTarget, kubevirtv1.MigrationTargetReady:
		if mine && (target == nil || ended(target)) && state.StartTimestamp == nil && !state.Failed {
			k.markFailed(vmi)
		}
	case kubevirtv1.MigrationFailed:
		if mine && !state.Failed {
			k.markFailed(vmi)
		}
	case kubevirtv1.MigrationRunning:
		if m.DeletionTimestamp != nil && mine && !state.AbortRequested {
			k.sleep()
			write(k.Cluster, virtControllerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
				vmi.Status.MigrationState.AbortRequested = true
			})
		}
	default:
	}
	return 0, nil
}

func (k *virtController) proceedPending(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod) (time.Duration, error) {
	if m.DeletionTimestamp != nil {
		return 0, k.deletePods([]*corev1.Pod{target})
	}
	if pause := k.evacuationPause(m, vmi); pause > 0 {
		return pause, nil
	}
	if len(vmi.Spec.UtilityVolumes) > 0 {
		return 0, nil
	}
	switch {
	case target == nil:
		return k.start(m, vmi)
	case ready(target) && hotplugs(vmi) && len(k.store.podsOf(target)) == 0:
		// Its refusal by quota sets no condition: the target pod is there.
		return 0, k.createPod(vmi, attachment(target), m, "Error creating attachment pod: %v")
	case !ready(target):
		return k.timeOut(target)
	default:
		return 0, nil
	}
}

// eligible reports whether no other migration of vmi is under way.
func (k *virtController) eligible(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) bool {
	state := vmi.Status.MigrationState
	if state == nil || state.MigrationUID == m.UID {
		return true
	}
	other := k.migrationOf(vmi)
	return other == nil || other.IsFinal()
}

// migrationOf returns the migration that vmi is in, or was in last; nil if there is none.
func (c *Cluster) migrationOf(vmi *kubevirtv1.VirtualMachineInstance) *kubevirtv1.VirtualMachineInstanceMigration {
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&c.store, vmi.Namespace) {
		if m.UID == vmi.Status.MigrationState.MigrationUID {
			return m
		}
	}
	return nil
}

// start creates the target pod, if KubeVirt's own limits let it.
func (k *virtController) start(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) (time.Duration, error) {
	if k.current(vmi) == nil {
		return 0, nil
	}
	if vmi.Status.RuntimeUser == 0 {
		k.sleep()
		write(k.Cluster, virtControllerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
			vmi.Status.RuntimeUser = 107
			metav1.SetMetaDataAnnotation(&vmi.ObjectMeta, kubevirtv1.DeprecatedNonRootVMIAnnotation, "true")
		})
		vmi, _ = find[*kubevirtv1.VirtualMachineInstance](&k.store, vmi.Namespace, vmi.Name)
		if vmi == nil {
			return 0, nil
		}
	}
	if pause := k.mustWait(m, vmi); pause > 0 || !vmi.IsRunning() {
		return pause, nil
	}
	source := k.backendClaim(vmi)
	shared := source != nil && slices.Contains(source.Status.AccessModes, corev1.ReadWriteMany)
	if persists(vmi) && k.targetClaim(m) == nil && !shared {
		if err := k.createClaim(vmi, kubevirtv1.MigrationNameLabel, m.Name); err != nil {
			return 0, err
		}
	}
	return 0, k.createPod(vmi, k.launcher(vmi), m, "Error creating pod: %v")
}

// mustWait returns for how long m has to wait because of other migrations, 0 if it need not. It does not try
// meanwhile, and has no condition.
func (k *virtController) mustWait(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) time.Duration {
	if len(k.expected) > 0 || k.active(vmi) > 1 {
		return time.Second
	}
	running, outbound := 0, 0
	for _, other := range all[*kubevirtv1.VirtualMachineInstanceMigration](&k.store, "") {
		if other.IsFinal() {
			continue
		}
		moving, ok := find[*kubevirtv1.VirtualMachineInstance](&k.store, other.Namespace, other.Spec.VMIName)
		if !other.IsRunning() && (!ok || k.target(other, moving) == nil) {
			continue
		}
		running++
		if ok && (moving.Status.NodeName == vmi.Status.NodeName ||
			moving.Status.MigrationState != nil && moving.Status.MigrationState.SourceNode == vmi.Status.NodeName) {
			outbound++
		}
	}
	if running < parallelMigrations && outbound < parallelOutbound {
		return 0
	}
	return priorityOf(m).pause
}

// A priority is that of a migration in KubeVirt's queue.
type priority struct {
	rank  int           // higher goes first
	pause time.Duration // how long it waits for others, without an event
}

var priorities = map[kubevirtv1.MigrationPriority]priority{
	kubevirtv1.PrioritySystemCritical:    {100, time.Second},
	kubevirtv1.PriorityUserTriggered:     {50, 3 * time.Second},
	kubevirtv1.PrioritySystemMaintenance: {20, 5 * time.Second},
}

func priorityOf(m *kubevirtv1.VirtualMachineInstanceMigration) priority {
	if m.Spec.Priority != nil {
		if p, known := priorities[*m.Spec.Priority]; known {
			return p
		}
	}
	return priority{pause: 5 * time.Second}
}

func (k *virtController) targetClaim(m *kubevirtv1.VirtualMachineInstanceMigration) *corev1.PersistentVolumeClaim {
	return k.claim(m.Namespace, kubevirtv1.MigrationNameLabel, m.Name)
}

// How long a target pod may be pending.
const (
	unschedulableTimeout = 5 * time.Minute
	pendingTimeout       = 15 * time.Minute
)

func (k *virtController) timeOut(target *corev1.Pod) (time.Duration, error) {
	if target == nil || target.Status.Phase != corev1.PodPending || target.DeletionTimestamp != nil {
		return 0, nil
	}
	timeout := pendingTimeout
	if target.Spec.NodeName == "" && slices.ContainsFunc(target.Status.Conditions, isUnschedulable) {
		timeout = unschedulableTimeout
	}
	if left := target.CreationTimestamp.Add(timeout).Sub(k.clock.now); left > 0 {
		return left, nil
	}
	return 0, k.deletePods([]*corev1.Pod{target})
}

func isUnschedulable(c corev1.PodCondition) bool {
	return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
}

// handOff hands the migration over to virt-handler.
func (k *virtController) handOff(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance, target *corev1.Pod) error {
	vmi = vmi.DeepCopy()
	state := &kubevirtv1.VirtualMachineInstanceMigrationState{
		MigrationUID:         m.UID,
		SourceNode:           vmi.Status.NodeName,
		TargetNode:           target.Spec.NodeName,
		TargetPod:            target.Name,
		TargetMemoryOverhead: overheadOf(target),
	}
	if own := m.Status.MigrationState; own != nil {
		state.SourcePod = own.SourcePod
		state.SourcePersistentStatePVCName = own.SourcePersistentStatePVCName
		state.TargetPersistentStatePVCName = own.TargetPersistentStatePVCName
	}
	if hotplugs(vmi) {
		attached := k.store.podsOf(target)
		if len(attached) == 0 {
			return errors.New("target attachment pod not found")
		}
		state.TargetAttachmentPodUID = attached[0].UID
	}
	if claim := k.targetClaim(m); claim != nil {
		setBackendVolume(vmi, claim)
	}
	vmi.Status.MigrationState = state
	metav1.SetMetaDataLabel(&vmi.ObjectMeta, kubevirtv1.MigrationTargetNodeNameLabel, target.Spec.NodeName)
	k.sleep()
	_, err := k.update(virtControllerUser, vmi, false)
	return err
}

// markFailed says on the VMI that its migration failed because the target pod ended before it began.
func (k *virtController) markFailed(vmi *kubevirtv1.VirtualMachineInstance) {
	k.sleep()
	write(k.Cluster, virtControllerUser, vmi, func(vmi *kubevirtv1.VirtualMachineInstance) {
		state := vmi.Status.MigrationState
		state.Failed, state.Completed = true, true
		state.FailureReason = "Target pod is down"
		state.EndTimestamp = pointer(k.stamp())
		if state.StartTimestamp == nil {
			state.StartTimestamp = pointer(k.stamp())
		}
	})
}
