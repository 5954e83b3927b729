package migration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
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
		if m.grows() {
			launcher = amounts.Each(launcher, m.growth(current, x.pod), amounts.Minus)
		}
		believe(launcher, quota.Footprint(m.expectedTarget(current, m.addedOverhead(current))))
	}
	c := claim{{traits: quota.TraitsOf(x.pod), surge: launcher, held: true}}
	attached := m.charged(m.attachments[x.pod.UID])
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
		launcher[name] = amounts.Min(q, trusted(most))
	}
}

// expectedClaim is that of a migration whose target pod is not there yet. What quota said that
// it was asked for when it refused that pod is more exact than the estimate: memory overhead and
// sidecars of another KubeVirt, or of another configuration, are seen nowhere else. While a
// hot-plug is carried out it includes the growth of the guest; see expectedGrowth.
func (m *machine) expectedClaim(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) claim {
	target := m.expectedTarget(current, m.addedOverhead(current))
	launcher := quota.Footprint(target)
	if !m.grows() {
		enlarge(launcher, refusedRequest(m.refusalsOf(vmim), podRefusal, launcher))
	}
	c := claim{{traits: quota.TraitsOf(target), surge: launcher}}
	c = append(c, m.expectedAttachment(current)...)
	c = append(c, m.deviceClaims(current, nil, false)...)
	return append(c, m.storage(vmim, false, false)...)
}

// attachedTo returns which of the attachment pods of a target KubeVirt made. That is
// one at most: if the VMI does not name it, the oldest, because where there is one it
// makes no second.
func (m *machine) attachedTo(vmim *kubevirtv1.VirtualMachineInstanceMigration, attached []*corev1.Pod) []*corev1.Pod {
	if uid := m.account(vmim.UID).attachment; uid != "" {
		return slices.DeleteFunc(attached, func(pod *corev1.Pod) bool { return pod.UID != uid })
	}
	return attached[:min(1, len(attached))]
}

// expectedAttachment is the pod that will attach the hot-plugged volumes on the
// target's node. KubeVirt makes one for all of them, like the latest of the source.
func (m *machine) expectedAttachment(current *corev1.Pod) claim {
	if current == nil {
		return nil
	}
	attached := m.charged(m.attachments[current.UID])
	if len(attached) == 0 {
		return nil
	}
	latest := attached[len(attached)-1]
	return claim{{traits: quota.TraitsOf(latest), surge: quota.FootprintAt(latest, m.Now)}}
}

func (c claim) holdsAny() bool {
	return slices.ContainsFunc(c, func(p part) bool { return p.held })
}

// fill writes c into to. What it holds is nil where that is all or nothing.
func (c claim) fill(to *quota.Migration) {
	var shares []quota.Share
	partly := c.holdsAny() && slices.ContainsFunc(c, func(p part) bool { return !p.held })
	empty := func() corev1.ResourceList {
		if partly {
			return corev1.ResourceList{}
		}
		return nil
	}
	to.Surge, to.Held = corev1.ResourceList{}, empty()
	for _, p := range c {
		i := slices.IndexFunc(shares, func(s quota.Share) bool { return s.Traits == p.traits })
		if i < 0 {
			i = len(shares)
			shares = append(shares, quota.Share{Traits: p.traits, Surge: corev1.ResourceList{}, Held: empty()})
		}
		add(to.Surge, p.surge)
		add(shares[i].Surge, p.surge)
		if partly && p.held {
			add(to.Held, p.surge)
			add(shares[i].Held, p.surge)
		}
	}
	if slices.ContainsFunc(shares, func(s quota.Share) bool { return s.Traits != quota.Traits{} }) {
		to.Shares = shares
	}
}

// add adds b to a in place.
func add(a, b corev1.ResourceList) {
	for name, q := range b {
		if sum, ok := a[name]; ok {
			a[name] = amounts.Plus(sum, q)
		} else {
			a[name] = q.DeepCopy()
		}
	}
}
