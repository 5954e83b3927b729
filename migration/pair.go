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
		maps.DeleteFunc(extras, func(uid types.UID, _ extra) bool { return !m.account(uid).known })
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
		if m.account(state.MigrationUID).won {
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
		if job := jobOf(pod); m.account(job).won && (winner == nil || jobOf(winner) != job) {
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
	if target := m.account(job).target; job == jobOf(current) || target != "" && target != pod.Name {
		return "", false
	}
	return job, false
}

// wonFrom returns the successful migration whose source was pod, which is not younger
// than current; "" if there is none. It is one of which a status tells that, or the one
// that made current, if none tells what its source was.
func (m *machine) wonFrom(pod, current *corev1.Pod) types.UID {
	job := jobOf(pod)
	if a := m.account(job); job != "" && a.known && !a.won {
		return ""
	}
	was := func(uid types.UID) bool {
		a := m.account(uid)
		return a.source != "" && a.source == pod.Name && a.won
	}
	for _, vmim := range m.migrations {
		if was(vmim.UID) {
			return vmim.UID
		}
	}
	if state := m.vmi.Status.MigrationState; state != nil && was(state.MigrationUID) {
		return state.MigrationUID
	}
	if winner := jobOf(current); winner != job && m.account(winner).source == "" {
		return winner
	}
	return ""
}

// An account is what the VMI and the VMIM say of a migration, the VMI first. What neither says is zero.
type account struct {
	known                    bool // whether there is the VMIM, or the VMI's state is about it
	won                      bool // it succeeded: its target is what the VMI runs in
	end                      time.Time
	source, target           string // pods
	sourceClaim, targetClaim string // of backend storage
	attachment               types.UID
}

// account returns what is said of the migration with that UID.
func (m *machine) account(uid types.UID) account {
	var a account
	vmim, state := m.vmim(uid), m.vmi.Status.MigrationState
	if vmim != nil && vmim.IsFinal() {
		a.won = vmim.Status.Phase == kubevirtv1.MigrationSucceeded
		a.end = enteredAt(vmim, vmim.Status.Phase)
	}
	if state != nil && state.MigrationUID == uid {
		a.won = a.won || uid != "" && state.Completed && !state.Failed
		a.read(state)
	}
	if vmim != nil {
		a.read(vmim.Status.MigrationState)
	}
	return a
}

// read adds what state says to a.
func (a *account) read(state *kubevirtv1.VirtualMachineInstanceMigrationState) {
	a.known = true
	if state == nil {
		return
	}
	if a.end.IsZero() && state.EndTimestamp != nil {
		a.end = state.EndTimestamp.Time
	}
	a.source, a.target = cmp.Or(a.source, state.SourcePod), cmp.Or(a.target, state.TargetPod)
	a.sourceClaim = cmp.Or(a.sourceClaim, state.SourcePersistentStatePVCName)
	a.targetClaim = cmp.Or(a.targetClaim, state.TargetPersistentStatePVCName)
	a.attachment = cmp.Or(a.attachment, state.TargetAttachmentPodUID)
}

// enteredAt returns when vmim came into phase, zero if it does not say.
func enteredAt(
	vmim *kubevirtv1.VirtualMachineInstanceMigration, phase kubevirtv1.VirtualMachineInstanceMigrationPhase,
) time.Time {
	for _, t := range vmim.Status.PhaseTransitionTimestamps {
		if t.Phase == phase {
			return t.PhaseTransitionTimestamp.Time
		}
	}
	return time.Time{}
}

// forged reports whether pod only claims to belong to a migration: anybody who may create
// pods in the namespace could claim room by labels. It does
//
//   - if it is younger than the end of the migration;
//   - if that is a migration of another VMI;
//   - if neither a VMIM nor the VMI knows of it, and the pod is not being deleted: KubeVirt
//     deletes the target pod before it lets the VMIM go.
func (m *machine) forged(uid types.UID, pod *corev1.Pod, lost bool) bool {
	if a := m.account(uid); a.known {
		return !a.end.IsZero() && pod.CreationTimestamp.After(a.end.Truncate(time.Second))
	}
	if m.vmims[uid] != nil {
		return true
	}
	return !lost && pod.DeletionTimestamp == nil
}

// first returns the first object, nil if there is none.
func first[T any](objects []*T) *T {
	if len(objects) == 0 {
		return nil
	}
	return objects[0]
}
