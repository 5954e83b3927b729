package scenario

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A State is what there is in the namespace of a scenario. The objects are read only.
type State struct {
	Namespace  *corev1.Namespace // nil: it is gone
	Quotas     []*corev1.ResourceQuota
	Pods       []*corev1.Pod
	VMIs       []*kubevirtv1.VirtualMachineInstance
	Migrations []*kubevirtv1.VirtualMachineInstanceMigration
	Ledger     *corev1.ConfigMap // what is recorded; nil: nothing
	Waits      []string          // what was told of migrations: see Waits
}

// Waits returns what an event about object says of State.Waits; none if it is another event.
func Waits(object metav1.Object, reason, message string) []string {
	what, _, found := strings.Cut(message, ": ")
	if reason != "HeadroomWaiting" || !found {
		return nil
	}
	return []string{object.GetName() + " " + what}
}

func named[T metav1.Object](objects []T, name string) (T, bool) {
	for _, o := range objects {
		if o.GetName() == name {
			return o, true
		}
	}
	var none T
	return none, false
}

// Phase is that of a migration as a file writes it: that of KubeVirt, Refused or Gone.
func (s State) Phase(name string) string {
	m, ok := named(s.Migrations, name)
	if !ok {
		return Gone
	}
	return phaseOf(m)
}

func phaseOf(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	const rejected = kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota
	if m.Status.Phase == kubevirtv1.MigrationPending &&
		slices.ContainsFunc(m.Status.Conditions, func(c kubevirtv1.VirtualMachineInstanceMigrationCondition) bool { return c.Type == rejected }) {
		return Refused
	}
	return string(m.Status.Phase)
}

// Is reports whether a migration is in a phase, or Refused, Gone or Charged.
func (s State) Is(name, phase string) bool {
	if phase != Charged {
		return s.Phase(name) == phase
	}
	m, ok := named(s.Migrations, name)
	return ok && slices.ContainsFunc(s.Pods, func(pod *corev1.Pod) bool { return targets(pod, m) })
}

// targets reports whether pod is the target pod of m.
func targets(pod *corev1.Pod, m *kubevirtv1.VirtualMachineInstanceMigration) bool {
	return pod.Labels[kubevirtv1.MigrationJobLabel] == string(m.UID)
}

// source returns the pod that m migrates from; false if it is gone.
func (s State) source(m *kubevirtv1.VirtualMachineInstanceMigration) (*corev1.Pod, bool) {
	if m.Status.MigrationState == nil {
		return nil, false
	}
	return named(s.Pods, m.Status.MigrationState.SourcePod)
}

// satisfies reports whether everything is so that is awaited.
func (s State) satisfies(a Await) bool {
	for name, phase := range a.Migrations {
		if !s.Is(name, phase) {
			return false
		}
	}
	for name, reason := range a.Waits {
		if !slices.ContainsFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
			return (m.Name == name || kindOf(m) == name) && slices.Contains(s.Waits, m.Name+" "+reason)
		}) {
			return false
		}
	}
	for name, is := range a.Quotas {
		rq, ok := named(s.Quotas, name)
		if !ok || is == Raised && !raised(rq) || is == Static && !static(rq) {
			return false
		}
	}
	for name, hard := range a.Enforced {
		if rq, ok := named(s.Quotas, name); !ok || !quota.Equal(rq.Status.Hard, hard) {
			return false
		}
	}
	for name, used := range a.Used {
		if rq, ok := named(s.Quotas, name); !ok || !quota.Equal(rq.Status.Used, used) {
			return false
		}
	}
	if a.Over && (!s.over() || slices.ContainsFunc(s.Quotas, func(rq *corev1.ResourceQuota) bool { return !static(rq) })) {
		return false
	}
	if a.Evacuations != nil && s.made("evacuation", string(kubevirtv1.MigrationSucceeded)) != *a.Evacuations {
		return false
	}
	if a.Update != "" && s.made("update", a.Update) == 0 {
		return false
	}
	if a.Node != "" && !s.Empty(a.Node) {
		return false
	}
	return a.Ledger == "" || (s.Ledger == nil) == (a.Ledger == Empty)
}

// Empty reports whether no VM runs on a node.
func (s State) Empty(node string) bool {
	return !slices.ContainsFunc(s.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Status.NodeName == node })
}

// Raised reports whether a limit of any quota is enforced that is above spec.hard.
func (s State) Raised() bool { return slices.ContainsFunc(s.Quotas, raised) }

// raised reports whether a limit is enforced that is above spec.hard.
func raised(rq *corev1.ResourceQuota) bool {
	for name, limit := range rq.Status.Hard {
		if desired, ok := rq.Spec.Hard[name]; ok && limit.Cmp(desired) > 0 {
			return true
		}
	}
	return false
}

// static reports whether spec.hard is what is enforced.
func static(rq *corev1.ResourceQuota) bool { return quota.Equal(rq.Status.Hard, rq.Spec.Hard) }

// over reports whether no VM has two pods that count.
func (s State) over() bool {
	counted := map[string]bool{}
	for _, pod := range s.Pods {
		uid, ofVM := pod.Labels[kubevirtv1.CreatedByLabel]
		if !ofVM || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		if counted[uid] {
			return false
		}
		counted[uid] = true
	}
	return true
}

// traces returns the names of the library's annotations on the quota, sorted; not that of the
// kill switch.
func traces(rq *corev1.ResourceQuota) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(rq.Annotations)), func(name string) bool {
		return !strings.HasPrefix(name, "headroom.vmquota.io/") || name == applier.DisabledAnnotation
	})
}

// made counts the migrations of a kind, see kindOf, that are in a phase.
func (s State) made(kind, phase string) (n int) {
	for _, m := range s.Migrations {
		if kindOf(m) == kind && phaseOf(m) == phase {
			n++
		}
	}
	return n
}

// owner is the name of the VM that a pod belongs to, also if that is gone; for others, of
// the pod.
func (s State) owner(pod *corev1.Pod) string {
	uid := types.UID(pod.Labels[kubevirtv1.CreatedByLabel])
	for _, vmi := range s.VMIs {
		if vmi.UID == uid {
			return vmi.Name
		}
	}
	if owner := metav1.GetControllerOf(pod); owner != nil {
		if launcher, ok := named(s.Pods, owner.Name); ok { // whose volumes it attaches
			return s.owner(launcher)
		}
		return owner.Name
	}
	return pod.Name
}
