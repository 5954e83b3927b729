package migration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A claim is what a migration charges twice, object by object.
type claim []part

// A part is one object of a claim.
type part struct {
	traits quota.Traits
	surge  corev1.ResourceList
	held   bool // whether usage contains it
}

// chargedClaim is that of a migration that has doubled its VMI by x.
func (m *machine) chargedClaim(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod, x extra) claim {
	launcher := quota.FootprintAt(x.pod, m.Now)
	over := x.lost || vmim.IsFinal() || vmim.DeletionTimestamp != nil
	if !x.lost {
		subtract(launcher, m.growth(current, x.pod))
		believe(launcher, quota.Footprint(m.expectedTarget(current)))
	}
	c := claim{{traits: quota.TraitsOf(x.pod), surge: launcher, held: true}}
	attached := m.attached(x.pod)
	if !x.lost {
		attached = m.attachedTo(vmim, attached)
	}
	for _, pod := range attached {
		c = append(c, part{traits: quota.TraitsOf(pod), surge: quota.FootprintAt(pod, m.Now), held: true})
	}
	if !over && len(attached) == 0 {
		c = append(c, m.expectedAttachment(current)...)
	}
	if x.lost {
		current = x.pod // what is charged too much is its own
	}
	c = append(c, m.deviceClaims(current, x.pod, over)...)
	return append(c, m.storage(vmim, x.lost, over)...)
}

// believe cuts launcher, what a target pod is charged for, down to refusalTrust times what is
// expected of one: whoever may create pods can forge a target pod, also for KubeVirt. The rest
// is regular usage.
func believe(launcher, expected corev1.ResourceList) {
	for name, q := range launcher {
		most, known := expected[name]
		if !known {
			delete(launcher, name)
			continue
		}
		most = most.DeepCopy()
		if most.Mul(refusalTrust); q.Cmp(most) > 0 {
			launcher[name] = most
		}
	}
}

// expectedClaim is that of a migration whose target pod is not there yet.
func (m *machine) expectedClaim(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) claim {
	target := m.expectedTarget(current)
	launcher := quota.Footprint(target)
	m.correct(launcher, vmim)
	c := claim{{traits: quota.TraitsOf(target), surge: launcher}}
	c = append(c, m.expectedAttachment(current)...)
	c = append(c, m.deviceClaims(current, nil, false)...)
	return append(c, m.storage(vmim, false, false)...)
}

// attached returns the attachment pods of launcher that quota charges, oldest first.
func (m *machine) attached(launcher *corev1.Pod) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, pod := range m.attachments[launcher.UID] {
		if m.charged(pod) {
			pods = append(pods, pod)
		}
	}
	return pods
}

// attachedTo returns which of the attachment pods of a target KubeVirt made. That is
// one at most: if the VMI does not name it, the oldest, because where there is one it
// makes no second.
func (m *machine) attachedTo(vmim *kubevirtv1.VirtualMachineInstanceMigration, attached []*corev1.Pod) []*corev1.Pod {
	if state := m.stateOf(vmim); state != nil && state.TargetAttachmentPodUID != "" {
		return slices.DeleteFunc(attached, func(pod *corev1.Pod) bool { return pod.UID != state.TargetAttachmentPodUID })
	}
	return attached[:min(1, len(attached))]
}

// expectedAttachment is the pod that will attach the hot-plugged volumes on the
// target's node. KubeVirt makes one for all of them, like the latest of the source.
func (m *machine) expectedAttachment(current *corev1.Pod) claim {
	if current == nil {
		return nil
	}
	attached := m.attached(current)
	if len(attached) == 0 {
		return nil
	}
	latest := attached[len(attached)-1]
	return claim{{traits: quota.TraitsOf(latest), surge: quota.FootprintAt(latest, m.Now)}}
}

func (c claim) holdAll() {
	for i := range c {
		c[i].held = true
	}
}

func (c claim) holdsAny() bool {
	for _, p := range c {
		if p.held {
			return true
		}
	}
	return false
}

// fill writes c into to. What it holds is nil where that is all or nothing.
func (c claim) fill(to *quota.Migration) {
	all, ordinary := true, true
	for _, p := range c {
		all = all && p.held
		ordinary = ordinary && p.traits == quota.Traits{}
	}
	to.Surge = corev1.ResourceList{}
	if c.holdsAny() && !all {
		to.Held = corev1.ResourceList{}
	}
	for _, p := range c {
		add(to.Surge, p.surge)
		if to.Held != nil && p.held {
			add(to.Held, p.surge)
		}
	}
	if !ordinary {
		to.Shares = c.shares(to.Held != nil)
	}
}

// shares groups the parts by their traits. If partly, each share says what it holds.
func (c claim) shares(partly bool) []quota.Share {
	var shares []quota.Share
	index := map[quota.Traits]int{}
	for _, p := range c {
		i, ok := index[p.traits]
		if !ok {
			i = len(shares)
			index[p.traits] = i
			shares = append(shares, quota.Share{Traits: p.traits, Surge: corev1.ResourceList{}})
			if partly {
				shares[i].Held = corev1.ResourceList{}
			}
		}
		add(shares[i].Surge, p.surge)
		if partly && p.held {
			add(shares[i].Held, p.surge)
		}
	}
	return shares
}

// add adds b to a in place.
func add(a, b corev1.ResourceList) {
	for name, q := range b {
		sum, ok := a[name]
		if !ok {
			a[name] = q.DeepCopy()
			continue
		}
		sum.Add(q)
		a[name] = sum
	}
}

// subtract takes b off a in place, down to zero. Resources that a does not have are
// ignored.
func subtract(a, b corev1.ResourceList) {
	for name, q := range b {
		if rest, ok := a[name]; ok {
			a[name] = less(rest, q)
		}
	}
}
