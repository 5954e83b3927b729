package main

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A ruling is what an applier would do about one quota, with what went into it.
type ruling struct {
	applier.QuotaResult
	quota      *corev1.ResourceQuota
	migrations []quota.Migration // as the quota sees them
}

// decide asks the applier's planner about every quota of t, and what its migrations wait for.
func decide(t tenant, policy quota.Policy) (inFlight []quota.Migration, rulings []ruling, waits map[types.UID]migration.Wait) {
	inFlight = migration.InFlight(t.snapshot)
	results := applier.Plan(applier.Config{Policy: func(string) quota.Policy { return policy }}, t.quotas, inFlight)
	for _, rq := range t.quotas {
		r := ruling{quota: rq, migrations: quota.Under(rq, inFlight)}
		i := slices.IndexFunc(results, func(result applier.QuotaResult) bool { return result.Name == rq.Name })
		if i >= 0 {
			r.QuotaResult = results[i]
		} else { // no migration charges anything that it limits
			r.Decision = policy.Decide(rq.Spec.Hard, nil, rq.Status.Used)
			r.Effective, r.Why = rq.Spec.Hard, "no migration needs room in it"
		}
		if r.Hard = rq.Status.Hard; r.Hard == nil {
			r.Hard = rq.Spec.Hard // kube-controller-manager is about to copy them
		}
		rulings = append(rulings, r)
	}
	waits = map[types.UID]migration.Wait{}
	for _, w := range migration.Waiting(t.snapshot, inFlight, results) {
		waits[w.UID] = w
	}
	return inFlight, rulings, waits
}

// claim returns what the migration uid charges twice under this quota, cut down to what the quota
// limits, and of which resources status.hard has no room for its target pod.
func (r ruling) claim(uid types.UID) (twice corev1.ResourceList, lacking []corev1.ResourceName) {
	twice = corev1.ResourceList{}
	i := slices.IndexFunc(r.migrations, func(m quota.Migration) bool { return m.UID == uid })
	if i < 0 {
		return twice, nil
	}
	for _, name := range amounts.Names(r.quota.Spec.Hard) {
		surge := r.migrations[i].Surge[name]
		if surge.Sign() > 0 {
			twice[name] = surge.DeepCopy()
		}
		need := amounts.Plus(surge, r.migrations[i].Growth[name])
		wanted := amounts.Plus(r.quota.Status.Used[name], need)
		if limit, limited := r.Hard[name]; limited && need.Sign() > 0 && wanted.Cmp(limit) > 0 {
			lacking = append(lacking, name)
		}
	}
	return twice, lacking
}

func (r ruling) granted(uid types.UID) bool { return slices.Contains(r.Decision.Granted, uid) }

// offers counts the granted migrations whose target pods have not come.
func (r ruling) offers() (n int) {
	for _, m := range r.migrations {
		if m.State < quota.Charged && r.granted(m.UID) {
			n++
		}
	}
	return n
}

// verdict says what status.hard needs.
func (r ruling) verdict() (action, why string) {
	offers, low, high := r.offers(), false, false
	for name, effective := range r.Effective {
		hard, ok := r.quota.Status.Hard[name]
		c := hard.Cmp(effective)
		low, high = low || ok && c < 0, high || ok && c > 0
	}
	switch {
	case low && offers == 1:
		action, why = "raise", "status.hard must rise: 1 migration waits for room."
	case low && offers > 0:
		action, why = "raise", fmt.Sprintf("status.hard must rise: %d migrations wait for room.", offers)
	case low:
		action, why = "raise", "status.hard must rise, or what is charged twice takes room from other workloads."
	case high && len(r.Decision.Granted) > 0:
		action, why = "lower", "status.hard must come down: the migrations need less."
	case high:
		action, why = "lower", "status.hard must come down: no migration needs the room."
	default:
		action, why = "keep", "status.hard is right: "+r.Why+"."
	}
	var over []corev1.ResourceName
	for _, name := range amounts.Names(r.quota.Spec.Hard) {
		if regular := r.Decision.Regular[name]; regular.Cmp(r.quota.Spec.Hard[name]) > 0 {
			over = append(over, name)
		}
	}
	if len(over) > 0 {
		why += " Regular workloads use more " + enumerate(over) + " than the tenant was given."
	}
	return action, why
}

// why says in plain words what becomes of the migration m, which r reports and which waits for
// wait.
func (t tenant) why(m quota.Migration, r migrationReport, wait migration.Wait, rulings []ruling) string {
	tried := "KubeVirt has not tried to start its target pod yet. "
	if r.State == blocked {
		tried = "Quota refused its target pod. "
	}
	switch {
	case slices.Contains(notForQuota, wait.Reason):
		return wait.Message
	case r.State == charged:
		return t.whyCharged(m)
	case wait.Reason != "" && wait.Reason != migration.QuotaExceeded:
		return tried + wait.Message
	default:
		return tried + whyRaised(m, r, rulings)
	}
}

// notForQuota are what migrations wait for without any quota being in the way.
var notForQuota = []quota.DeferralReason{migration.UtilityVolumes, migration.Backup, migration.BackOff, migration.NoNodeFits}

// whyCharged names the pod that has to stop.
func (t tenant) whyCharged(m quota.Migration) string {
	if m.OnlyClaims() {
		return "The migration is over, but the claim that it has left still counts. It lasts until the losing pod, which has ended, is deleted."
	}
	target := find(t.snapshot.Pods, func(pod *corev1.Pod) bool { return jobOf(pod) == m.UID && !quota.Ended(pod, t.snapshot.Now) })
	if target == nil {
		return "Its target pod was created and counts. It lasts until the losing pod stops."
	}
	source := find(t.snapshot.Pods, func(pod *corev1.Pod) bool {
		return pod != target && pod.Labels[kubevirtv1.CreatedByLabel] == target.Labels[kubevirtv1.CreatedByLabel] && !quota.Ended(pod, t.snapshot.Now)
	})
	if source == nil {
		return fmt.Sprintf("Its target pod %s counts. It lasts until the losing pod stops.", target.Name)
	}
	vmim := t.vmim(m.UID)
	vmi := find(t.snapshot.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Name == m.VMI })
	what, until := "Both its pods exist", "the losing pod stops: the source after success, the target after failure"
	switch {
	case vmim == nil:
		what, until = "The migration was deleted, but both pods still count", "one of them stops"
	case vmim.Status.Phase == kubevirtv1.MigrationSucceeded:
		what, until = "The VM has moved, but the pod that it left still counts", "the source stops"
	case vmim.Status.Phase == kubevirtv1.MigrationFailed:
		what, until = "The migration failed, but its target pod still counts", "the target stops"
	case vmi == nil || vmi.DeletionTimestamp != nil:
		what, until = "The VM is being stopped, but both pods still count", "one of them stops"
	}
	return fmt.Sprintf("%s: source %s, target %s. It lasts until %s.", what, source.Name, target.Name, until)
}

// whyRaised says what has to be raised for the target pod of m.
func whyRaised(m quota.Migration, report migrationReport, rulings []ruling) string {
	var raises []string
	others := 0
	for _, r := range rulings {
		_, lacking := r.claim(m.UID)
		if len(lacking) == 0 {
			continue
		}
		others = max(others, r.offers()-1)
		var changes []string
		for _, name := range lacking {
			changes = append(changes, string(name)+" "+change(name, r.Hard[name], r.Effective[name]))
		}
		raises = append(raises, enumerate(changes)+" (ResourceQuota "+r.quota.Name+")")
	}
	switch {
	case len(report.Twice) == 0 && report.State == blocked:
		return "No quota limits it now, so KubeVirt's next try lets it in."
	case len(report.Twice) == 0:
		return "No quota limits what it charges twice."
	case len(raises) == 0:
		return "There is room for it."
	case others > 0:
		return fmt.Sprintf("Raising %s lets it and %d more in.", enumerate(raises), others)
	}
	return fmt.Sprintf("Raising %s lets it in.", enumerate(raises))
}

// find returns the first of list that is as asked for, nil if none is.
func find[T any](list []*T, is func(*T) bool) *T {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i]
	}
	return nil
}

func (t tenant) vmim(uid types.UID) *kubevirtv1.VirtualMachineInstanceMigration {
	return find(t.snapshot.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return m.UID == uid })
}

func jobOf(pod *corev1.Pod) types.UID { return types.UID(pod.Labels[kubevirtv1.MigrationJobLabel]) }
