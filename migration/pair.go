package migration

import (
	"cmp"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// An extra is a charged virt-launcher pod that is one too many: the one that a
// migration has doubled its VMI by.
type extra struct {
	pod *corev1.Pod
	// lost: the migration succeeded, and the pod is its former source. Otherwise it
	// is its target.
	lost bool
}

// pairs finds the pod that the VMI runs in, and by migration the pods besides it.
// Where there are no two charged pods there is nothing besides.
func (m *machine) pairs() (current *corev1.Pod, extras map[types.UID]extra) {
	charged := m.charged(m.launchers)
	current = m.current(charged)
	for _, pod := range charged {
		if pod == current {
			continue
		}
		uid, lost := m.doubledBy(pod, current)
		if uid == "" || m.forged(uid, pod, lost) {
			continue
		}
		// One pod a migration. KubeVirt makes no second target where there is one; of
		// several former sources the youngest is that of the latest migration.
		if _, ok := extras[uid]; ok && !lost {
			continue
		}
		if extras == nil {
			extras = map[types.UID]extra{}
		}
		extras[uid] = extra{pod: pod, lost: lost}
	}
	if len(extras) > 1 {
		// KubeVirt creates no target pod while there are two, so a pod of which only
		// its labels tell is forged if there are others.
		maps.DeleteFunc(extras, func(uid types.UID, _ extra) bool { return !m.knows(uid) })
	}
	return current, extras
}

// current returns which of the charged pods the VMI runs in.
func (m *machine) current(charged []*corev1.Pod) *corev1.Pod {
	if len(charged) < 2 {
		return first(charged)
	}
	if state := m.vmi.Status.MigrationState; state != nil {
		name := state.SourcePod
		if m.won(state.MigrationUID) {
			name = state.TargetPod
		}
		if pod := named(charged, name); pod != nil {
			return pod
		}
	}
	// The VMI says nothing of these pods: the migration is not handed over yet, or
	// the VMI is older than the other objects.
	var winner *corev1.Pod
	for _, pod := range charged {
		// Of several with one label, the oldest: the target is there before the end.
		if job := jobOf(pod); m.won(job) && (winner == nil || jobOf(winner) != job) {
			winner = pod
		}
	}
	if winner != nil {
		return winner
	}
	for _, vmim := range m.migrations {
		if state := vmim.Status.MigrationState; state != nil && !vmim.IsFinal() {
			if pod := named(charged, state.SourcePod); pod != nil {
				return pod
			}
		}
	}
	for _, pod := range charged {
		if m.vmim(jobOf(pod)) == nil {
			return pod
		}
	}
	return first(charged)
}

// won reports whether the migration succeeded: its target is what the VMI runs in.
func (m *machine) won(uid types.UID) bool {
	if vmim := m.vmim(uid); vmim != nil && vmim.Status.Phase == kubevirtv1.MigrationSucceeded {
		return true
	}
	state := m.stateOf(uid)
	return uid != "" && state != nil && state.Completed && !state.Failed
}

// doubledBy returns the migration because of which pod is there besides current, ""
// if it is none.
func (m *machine) doubledBy(pod, current *corev1.Pod) (uid types.UID, lost bool) {
	if !pod.CreationTimestamp.After(current.CreationTimestamp.Time) {
		if uid := m.wonFrom(pod, current); uid != "" {
			return uid, true
		}
	}
	// If it is a target, then of another migration than current was, and by the name
	// that a status gives, if one does.
	job := jobOf(pod)
	if _, target := m.podsOf(job); job == jobOf(current) || target != "" && target != pod.Name {
		return "", false
	}
	return job, false
}

// wonFrom returns the successful migration whose source was pod, which is not younger
// than current; "" if there is none. It is one of which a status tells that, or the one
// that made current, if none tells what its source was.
func (m *machine) wonFrom(pod, current *corev1.Pod) types.UID {
	job := jobOf(pod)
	if job != "" && !m.won(job) && m.knows(job) {
		return ""
	}
	was := func(uid types.UID) bool {
		source, _ := m.podsOf(uid)
		return source != "" && source == pod.Name && m.won(uid)
	}
	for _, vmim := range m.migrations {
		if was(vmim.UID) {
			return vmim.UID
		}
	}
	if state := m.vmi.Status.MigrationState; state != nil && was(state.MigrationUID) {
		return state.MigrationUID
	}
	if winner := jobOf(current); winner != job {
		if source, _ := m.podsOf(winner); source == "" {
			return winner
		}
	}
	return ""
}

// podsOf returns the names of the source and the target pod of a migration; "" where
// neither the VMI nor the VMIM tells.
func (m *machine) podsOf(uid types.UID) (source, target string) {
	for _, state := range m.statesOf(uid) {
		source, target = cmp.Or(source, state.SourcePod), cmp.Or(target, state.TargetPod)
	}
	return source, target
}

// knows reports whether a VMIM of this machine, or its VMI's status, tells of a
// migration.
func (m *machine) knows(uid types.UID) bool { return m.vmim(uid) != nil || m.stateOf(uid) != nil }

// stateOf returns the VMI's migration state if it is about that migration, else nil.
func (m *machine) stateOf(uid types.UID) *kubevirtv1.VirtualMachineInstanceMigrationState {
	if state := m.vmi.Status.MigrationState; state != nil && state.MigrationUID == uid {
		return state
	}
	return nil
}

// statesOf returns what the VMI and the VMIM tell of a migration, the VMI first.
func (m *machine) statesOf(uid types.UID) []*kubevirtv1.VirtualMachineInstanceMigrationState {
	var states []*kubevirtv1.VirtualMachineInstanceMigrationState
	if state := m.stateOf(uid); state != nil {
		states = append(states, state)
	}
	if vmim := m.vmim(uid); vmim != nil && vmim.Status.MigrationState != nil {
		states = append(states, vmim.Status.MigrationState)
	}
	return states
}

// forged reports whether pod only claims to belong to a migration: anybody who may create
// pods in the namespace could claim room by labels. It does
//
//   - if it is younger than the end of the migration;
//   - if that is a migration of another VMI;
//   - if neither a VMIM nor the VMI knows of it, and the pod is not being deleted: KubeVirt
//     deletes the target pod before it lets the VMIM go.
func (m *machine) forged(uid types.UID, pod *corev1.Pod, lost bool) bool {
	if m.knows(uid) {
		end := m.endOf(uid)
		return !end.IsZero() && pod.CreationTimestamp.After(end.Truncate(time.Second))
	}
	if m.vmims[uid] != nil {
		return true
	}
	return !lost && pod.DeletionTimestamp == nil
}

// endOf returns when the migration ended, zero if it has not or nobody tells.
func (m *machine) endOf(uid types.UID) time.Time {
	if vmim := m.vmim(uid); vmim != nil && vmim.IsFinal() {
		for _, transition := range vmim.Status.PhaseTransitionTimestamps {
			if transition.Phase == vmim.Status.Phase {
				return transition.PhaseTransitionTimestamp.Time
			}
		}
	}
	for _, state := range m.statesOf(uid) {
		if state.EndTimestamp != nil {
			return state.EndTimestamp.Time
		}
	}
	return time.Time{}
}

// first returns the first object, nil if there is none.
func first[T any](objects []*T) *T {
	if len(objects) == 0 {
		return nil
	}
	return objects[0]
}
