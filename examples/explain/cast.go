package main

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A cast is the migrations of a namespace and the pods that play in them.
type cast struct {
	tenant   tenant
	inFlight map[types.UID]quota.Migration
	vmims    map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration
}

func newCast(t tenant, inFlight []quota.Migration) cast {
	c := cast{
		tenant:   t,
		inFlight: map[types.UID]quota.Migration{},
		vmims:    map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration{},
	}
	for _, m := range inFlight {
		c.inFlight[m.UID] = m
	}
	for _, vmim := range t.snapshot.Migrations {
		c.vmims[vmim.UID] = vmim
	}
	return c
}

// migrations reports all that are in flight, then those that are not.
func (c cast) migrations(rulings []ruling) []migrationReport {
	var reports []migrationReport
	for _, m := range c.inFlight {
		reports = append(reports, c.describe(m, rulings))
	}
	for uid, vmim := range c.vmims {
		if _, ok := c.inFlight[uid]; !ok {
			reports = append(reports, c.absent(vmim))
		}
	}
	slices.SortFunc(reports, func(a, b migrationReport) int {
		return cmp.Or(
			cmp.Compare(order[a.State], order[b.State]),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return reports
}

// order is that of the states in a report.
var order = map[state]int{charged: 0, blocked: 1, queued: 2, decentralized: 3, over: 4}

// describe reports a migration that is in flight.
func (c cast) describe(m quota.Migration, rulings []ruling) migrationReport {
	r := migrationReport{
		Name:  c.nameOf(m.UID),
		UID:   m.UID,
		VMI:   m.VMI,
		State: stateOf(m.State),
		Twice: positive(m.Surge),
		Held:  positive(held(m)),
	}
	if vmim := c.vmims[m.UID]; vmim != nil {
		r.Phase = string(vmim.Status.Phase)
		if vmim.IsDecentralized() {
			r.State = decentralized
		}
	}
	r.Decision = decisionOf(m, rulings)
	r.limited = corev1.ResourceList{}
	for _, ruling := range rulings {
		for name, q := range ruling.claim(m.UID) {
			if known, ok := r.limited[name]; !ok || known.Cmp(q) < 0 {
				r.limited[name] = q
			}
		}
		if d := ruling.deferral(m.UID); d != nil {
			r.Deferred = append(r.Deferred, deferralReport{Quota: ruling.quota.Name, Reason: d.Reason, Missing: d.Missing})
		}
	}
	if r.State == decentralized {
		r.Decision = none
	}
	r.Why = c.why(m, r, rulings)
	return r
}

func stateOf(s quota.State) state {
	switch s {
	case quota.Queued:
		return queued
	case quota.Blocked:
		return blocked
	default:
		return charged
	}
}

// decisionOf sums up what the quotas say: one that defers m keeps it out.
func decisionOf(m quota.Migration, rulings []ruling) decision {
	d := none
	if m.State == quota.Queued {
		d = waiting
	}
	for _, r := range rulings {
		switch {
		case r.deferral(m.UID) != nil:
			return deferred
		case r.granted(m.UID):
			d = granted
		}
	}
	return d
}

// absent reports a migration that exists and charges nothing twice.
func (c cast) absent(vmim *kubevirtv1.VirtualMachineInstanceMigration) migrationReport {
	r := migrationReport{
		Name:     vmim.Name,
		UID:      vmim.UID,
		VMI:      vmim.Spec.VMIName,
		Phase:    string(vmim.Status.Phase),
		State:    over,
		Decision: none,
		Twice:    corev1.ResourceList{},
		Held:     corev1.ResourceList{},
	}
	switch {
	case vmim.IsFinal():
		r.Why = "It is over and charges nothing twice."
	case vmim.IsDecentralized():
		r.State = decentralized
		r.Why = decentralizedSentence
	case findVMI(c.tenant.snapshot.VMIs, vmim.Spec.VMIName) == nil:
		r.Why = "Its VM does not run any more, so there is nothing to move."
	default:
		r.Why = "It charges nothing twice."
	}
	return r
}

// nameOf returns the name of the migration, from its target pod if it is gone.
func (c cast) nameOf(uid types.UID) string {
	if vmim := c.vmims[uid]; vmim != nil {
		return vmim.Name
	}
	if target := c.target(uid); target != nil {
		return target.Annotations[kubevirtv1.MigrationJobNameAnnotation]
	}
	return ""
}

// target returns the pod that was started for the migration, unless it is
// terminal.
func (c cast) target(uid types.UID) *corev1.Pod {
	return c.livePod(func(pod *corev1.Pod) bool { return pod.Labels[kubevirtv1.MigrationJobLabel] == string(uid) })
}

// source returns the other pod of the same virtual machine instance, unless it is
// terminal.
func (c cast) source(target *corev1.Pod) *corev1.Pod {
	return c.livePod(func(pod *corev1.Pod) bool {
		return pod.UID != target.UID && pod.Labels[kubevirtv1.AppLabel] == "virt-launcher" &&
			pod.Labels[kubevirtv1.CreatedByLabel] == target.Labels[kubevirtv1.CreatedByLabel]
	})
}

func (c cast) livePod(is func(*corev1.Pod) bool) *corev1.Pod {
	for _, pod := range c.tenant.snapshot.Pods {
		terminal := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if !terminal && is(pod) {
			return pod
		}
	}
	return nil
}

// held is what used contains of m: all of a charged one that does not say.
func held(m quota.Migration) corev1.ResourceList {
	switch {
	case m.State < quota.Charged:
		return nil
	case m.Held == nil:
		return m.Surge
	default:
		return m.Held
	}
}

// positive leaves out what is zero, and is never nil.
func positive(list corev1.ResourceList) corev1.ResourceList {
	kept := corev1.ResourceList{}
	for name, q := range list {
		if q.Sign() > 0 {
			kept[name] = q
		}
	}
	return kept
}
