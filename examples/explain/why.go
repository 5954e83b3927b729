package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

const decentralizedSentence = "It moves the VM between namespaces or clusters, so in each of them only one pod counts."

// why says in plain words what becomes of the migration m, which r reports.
func (t tenant) why(m quota.Migration, r migrationReport, rulings []ruling) string {
	tried := "KubeVirt has not tried to start its target pod yet. "
	if r.State == blocked {
		tried = "Quota refused its target pod. "
	}
	switch {
	case r.State == charged:
		return t.whyCharged(m)
	case r.Decision == deferred:
		return tried + whyDeferred(r)
	default:
		return tried + whyWaiting(m, r, rulings)
	}
}

// whyCharged names the pod that has to stop.
func (t tenant) whyCharged(m quota.Migration) string {
	target := find(t.snapshot.Pods, func(pod *corev1.Pod) bool { return jobOf(pod) == m.UID && !ended(pod) })
	if target == nil {
		return "Its target pod was created and counts. It lasts until the losing pod stops."
	}
	source := find(t.snapshot.Pods, func(pod *corev1.Pod) bool {
		return pod != target && pod.Labels[kubevirtv1.CreatedByLabel] == target.Labels[kubevirtv1.CreatedByLabel] && !ended(pod)
	})
	if source == nil {
		return fmt.Sprintf("Its target pod %s counts. It lasts until the losing pod stops.", target.Name)
	}
	both := fmt.Sprintf(": source %s, target %s. It lasts until ", source.Name, target.Name)
	vmim := t.vmim(m.UID)
	switch {
	case vmim == nil:
		return "The migration was deleted, but both pods still count" + both + "one of them stops."
	case vmim.Status.Phase == kubevirtv1.MigrationSucceeded:
		return "The VM has moved, but the pod that it left still counts" + both + "the source stops."
	case vmim.Status.Phase == kubevirtv1.MigrationFailed:
		return "The migration failed, but its target pod still counts" + both + "the target stops."
	}
	if vmi := find(t.snapshot.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Name == m.VMI }); vmi == nil || vmi.DeletionTimestamp != nil {
		return "The VM is being stopped, but both pods still count" + both + "one of them stops."
	}
	return "Both its pods exist" + both + "the losing pod stops: the source after success, the target after failure."
}

// whyWaiting says what has to be raised for the target pod of m.
func whyWaiting(m quota.Migration, r migrationReport, rulings []ruling) string {
	var raises []string
	seen, waits, others := false, false, 0
	for _, r := range rulings {
		seen = seen || len(r.claim(m.UID)) > 0
		waits = waits || !r.granted(m.UID) && len(r.lacking(m.UID, r.effective, r.decision.Need)) > 0
		lacking := r.lacking(m.UID, enforced(r.quota), nil)
		if len(lacking) == 0 {
			continue
		}
		others = max(others, r.offers()-1)
		var changes []string
		for _, name := range lacking {
			changes = append(changes, string(name)+" "+change(name, enforced(r.quota)[name], r.effective[name]))
		}
		raises = append(raises, enumerate(changes)+" (ResourceQuota "+r.quota.Name+")")
	}
	switch {
	case !seen && r.State == blocked:
		return "No quota limits it now, so KubeVirt's next try lets it in."
	case !seen:
		return "No quota limits what it charges twice."
	case waits:
		return "As many migrations as KubeVirt runs at a time are before it, so no room is open for it yet."
	case len(raises) == 0:
		return "There is room for it."
	}
	who := "it"
	if others > 0 {
		who = fmt.Sprintf("it and %d more", others)
	}
	return fmt.Sprintf("Raising %s lets %s in.", enumerate(raises), who)
}

// offers counts the granted migrations whose target pods have not come.
func (r ruling) offers() int {
	n := 0
	for _, m := range r.migrations {
		if m.State < quota.Charged && r.granted(m.UID) {
			n++
		}
	}
	return n
}

// whyDeferred says what is missing, for the first quota that defers it.
func whyDeferred(r migrationReport) string {
	d := r.Deferred[0]
	missing, sentence := amounts(d.Missing), ""
	switch d.Reason {
	case quota.BudgetExceeded:
		sentence = fmt.Sprintf("It needs %s more than the whole budget, and waits for a larger one.", missing)
	case quota.BudgetUsed:
		sentence = fmt.Sprintf("The budget is used up by the migrations before it, %s short. It waits for them to end.", missing)
	case quota.RegularAboveStatic:
		sentence = fmt.Sprintf("Regular workloads use %s more than the static limit, which --strict does not lift. "+
			"It waits until they use less.", missing)
	case applier.GrowthAboveStatic:
		sentence = fmt.Sprintf("Its VM grows by hot-plug, and %s are missing in the static limits: room for migrations does not help.", missing)
	case applier.RefusedElsewhere:
		sentence = "A quota that is no ResourceQuota of this namespace refuses it, so room here does not help."
	case applier.Disabled:
		sentence = "It needs more room, but headroom is switched off here."
	default:
		sentence = fmt.Sprintf("It waits (%s): %s are missing.", d.Reason, missing)
	}
	if len(r.Deferred) > 1 {
		sentence += fmt.Sprintf(" That is in %s; other quotas defer it too.", d.Quota)
	}
	return sentence
}

// verdict says what status.hard needs.
func (r ruling) verdict() (action, why string) {
	offers, low, high := r.offers(), false, false
	for name, effective := range r.effective {
		hard, ok := r.quota.Status.Hard[name]
		c := hard.Cmp(effective)
		low, high = low || ok && c < 0, high || ok && c > 0
	}
	switch {
	case low && offers == 1:
		return "raise", "status.hard must rise: 1 migration waits for room"
	case low && offers > 0:
		return "raise", fmt.Sprintf("status.hard must rise: %d migrations wait for room", offers)
	case low:
		return "raise", "status.hard must rise, or what is charged twice takes room from other workloads"
	case high && len(r.decision.Granted) > 0:
		return "lower", "status.hard must come down: the migrations need less"
	case high:
		return "lower", "status.hard must come down: no migration needs the room"
	default:
		return "keep", "status.hard is right: " + r.why
	}
}

// aboveStatic says where regular workloads use more than the tenant was given.
func (r ruling) aboveStatic() string {
	var over []string
	for _, name := range sortedNames(r.quota.Spec.Hard) {
		if regular := r.decision.Regular[name]; regular.Cmp(r.quota.Spec.Hard[name]) > 0 {
			over = append(over, string(name))
		}
	}
	if len(over) == 0 {
		return ""
	}
	return " Regular workloads use more " + enumerate(over) + " than the tenant was given."
}
