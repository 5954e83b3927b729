package main

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

const decentralizedSentence = "It moves the VM between namespaces or clusters, so in each of them only one pod counts."

// why says in plain words what becomes of the migration m, which r reports.
func (c cast) why(m quota.Migration, r migrationReport, rulings []ruling) string {
	switch {
	case r.State == decentralized:
		return decentralizedSentence
	case r.State == charged:
		return c.whyCharged(m)
	case r.Decision == deferred:
		return whyDeferred(r)
	case r.State == blocked:
		return whyBlocked(m, rulings)
	case r.Decision == granted:
		return "KubeVirt has not tried to start its target pod yet; --eager makes room for it beforehand."
	default:
		return "KubeVirt has not tried to start its target pod yet. It needs no room until then."
	}
}

// whyCharged names the pod that has to stop.
func (c cast) whyCharged(m quota.Migration) string {
	target, vmim := c.target(m.UID), c.vmims[m.UID]
	switch {
	case target == nil && vmim != nil && !vmim.IsFinal():
		return "Its target pod was created and counts. It lasts until the losing pod stops."
	case target == nil:
		return "Something of it still counts twice. It lasts until the losing pod stops."
	}
	source := c.source(target)
	switch {
	case source == nil:
		return fmt.Sprintf("Its target pod %s counts. It lasts until the losing pod stops.", target.Name)
	case vmim == nil:
		return fmt.Sprintf("The migration was deleted, but both pods still count: %s and %s. It lasts until one of them stops.",
			source.Name, target.Name)
	case vmim.Status.Phase == kubevirtv1.MigrationSucceeded:
		return fmt.Sprintf("The VM has moved to %s, but the pod that it left still counts. It lasts until %s stops.",
			target.Name, source.Name)
	case vmim.Status.Phase == kubevirtv1.MigrationFailed:
		return fmt.Sprintf("The migration failed, but its target pod still counts. It lasts until %s stops.", target.Name)
	}
	if vmi := findVMI(c.tenant.snapshot.VMIs, m.VMI); vmi == nil || vmi.DeletionTimestamp != nil {
		return fmt.Sprintf("The VM is being stopped, but both pods still count: %s and %s. It lasts until one of them stops.",
			source.Name, target.Name)
	}
	return fmt.Sprintf("Both its pods exist: source %s, target %s. It lasts until the losing pod stops: "+
		"the source after success, the target after failure.", source.Name, target.Name)
}

// whyBlocked says what has to be raised.
func whyBlocked(m quota.Migration, rulings []ruling) string {
	var raises []string
	seen, written, others := false, true, 0
	for _, r := range rulings {
		claim := r.claim(m.UID)
		if len(claim) == 0 {
			continue
		}
		seen = true
		others = max(others, r.blockedAndGranted()-1)
		var changes []string
		written = written && len(r.lacking(claim, r.quota.Spec.Hard)) == 0
		for _, name := range r.lacking(claim, enforced(r.quota)) {
			changes = append(changes, string(name)+" "+unitOf(name).change(enforced(r.quota)[name], r.decision.Hard[name]))
		}
		if len(changes) > 0 {
			raises = append(raises, enumerate(changes)+" (ResourceQuota "+r.quota.Name+")")
		}
	}
	switch {
	case !seen:
		return "Quota refused its target pod, but no quota limits it now. KubeVirt's next try lets it in."
	case len(raises) == 0:
		return "Quota refused its target pod. Now there is room, and KubeVirt's next try lets it in."
	case written:
		return "Quota refused its target pod. The raise is written to spec.hard, but not in force yet: status.hard lags."
	}
	who := "it"
	if others > 0 {
		who = fmt.Sprintf("it and %d more", others)
	}
	return fmt.Sprintf("Quota refused its target pod. Raising %s lets %s in.", enumerate(raises), who)
}

// whyDeferred says what is missing, for the first quota that defers it.
func whyDeferred(r migrationReport) string {
	sentence := ""
	if r.State == blocked {
		sentence = "Quota refused its target pod. "
	}
	d := r.Deferred[0]
	missing := missingAmounts(d.Missing)
	switch d.Reason {
	case quota.BudgetExceeded:
		sentence += fmt.Sprintf("It needs %s more than the whole budget, and waits for a larger one.", missing)
	case quota.BudgetUsed:
		sentence += fmt.Sprintf("The budget is used up by the migrations before it, %s short. It waits for them to end.", missing)
	case quota.RegularAboveStatic:
		sentence += fmt.Sprintf("Regular workloads use %s more than the static limit, which --strict does not lift. "+
			"It waits until they use less.", missing)
	default:
		sentence += fmt.Sprintf("It waits (%s): %s are missing.", d.Reason, missing)
	}
	if len(r.Deferred) > 1 {
		sentence += fmt.Sprintf(" That is in %s; other quotas defer it too.", d.Quota)
	}
	return sentence
}

func missingAmounts(list corev1.ResourceList) string {
	var parts []string
	for _, name := range sortedNames(list) {
		parts = append(parts, fmt.Sprintf("%s of %s", unitOf(name).withUnit(list[name]), name))
	}
	return enumerate(parts)
}

// advice says what spec.hard needs.
func (r ruling) advice() (action, string) {
	what, why := r.verdict()
	return what, why + r.aboveStatic()
}

func (r ruling) verdict() (action, string) {
	low, high := r.diverging()
	blockedNow := r.blockedAndGranted()
	switch {
	case len(low) > 0 && len(high) > 0:
		return change, "spec.hard must change: " + r.changes(append(low, high...)) + "."
	case len(low) > 0 && blockedNow > 0:
		return raise, fmt.Sprintf("spec.hard must rise: %s.", waitFor(blockedNow))
	case len(low) > 0 && len(r.decision.Granted) > 0:
		return raise, "spec.hard must rise, or what is charged twice takes room from the other workloads."
	case len(low) > 0:
		return raise, "spec.hard must rise."
	case len(high) > 0 && len(r.decision.Granted) > 0:
		return lower, "spec.hard is higher than the migrations need."
	case len(high) > 0:
		return lower, "spec.hard must come down: no migration needs the room."
	case !sameLimits(enforced(r.quota), r.quota.Spec.Hard):
		return keep, "spec.hard is right, but not in force yet: status.hard lags."
	case len(r.decision.Granted) > 0:
		return keep, "spec.hard is right for the migrations that there are."
	default:
		return keep, "spec.hard is right."
	}
}

// blockedAndGranted counts the migrations that wait for this quota and get room.
func (r ruling) blockedAndGranted() int {
	n := 0
	for _, m := range r.migrations {
		if m.State == quota.Blocked && r.granted(m.UID) && len(r.claim(m.UID)) > 0 {
			n++
		}
	}
	return n
}

// aboveStatic says where regular workloads use more than the tenant was given.
func (r ruling) aboveStatic() string {
	var over []string
	for _, name := range sortedNames(r.static) {
		if regular := r.decision.Regular[name]; regular.Cmp(r.static[name]) > 0 {
			over = append(over, string(name))
		}
	}
	if len(over) == 0 {
		return ""
	}
	return " Regular workloads use more " + enumerate(over) + " than the tenant was given."
}

func waitFor(n int) string {
	if n == 1 {
		return "1 migration waits for room"
	}
	return fmt.Sprintf("%d migrations wait for room", n)
}

func (r ruling) changes(names []corev1.ResourceName) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, string(name)+" "+unitOf(name).change(r.quota.Spec.Hard[name], r.decision.Hard[name]))
	}
	return strings.Join(parts, ", ")
}
