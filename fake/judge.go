package fake

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// An Invariant is what has to hold whatever happens. That of [RancherUser] is no process under test.
type Invariant string

const (
	// WroteSpec says that a process called a ResourceQuota other than through /status, even if the call failed,
	// or changed more there than status.hard and annotations.
	WroteSpec Invariant = "WroteSpec"
	// BelowStatic says that a process set status.hard below spec.hard, or dropped or added a limit.
	BelowStatic Invariant = "BelowStatic"
	// Starved says that at rest, a migration is one of [Cluster.Starving].
	Starved Invariant = "Starved"
	// Leftover says that at rest, status.hard is not spec.hard to the byte (or, while a migration hangs, is
	// below static and the surge of the charged migrations, or above what all of them can need), or that
	// annotations or ConfigMaps of a process are left.
	Leftover Invariant = "Leftover"
	// Restless says that at rest, a process goes on writing. While migrations hang, it may write a quota once
	// for each time that somebody else sets status.hard, and three times a minute for each migration and quota
	// (an offer is announced, made, and ended), and a ConfigMap once for each.
	Restless Invariant = "Restless"
)

// maxViolations is how many are remembered.
const maxViolations = 10

// A Violation is an invariant that was broken.
type Violation struct {
	Invariant Invariant
	At        time.Duration // since the beginning, in simulated time
	Detail    string
	Seed      uint64   // the same test with this Config.Seed breaks it again
	History   []string // the last actions before it
}

// String returns the whole violation, on several lines.
func (v Violation) String() string {
	return fmt.Sprintf("%s at %v: %s\nseed %d, the last actions:\n  %s", v.Invariant, v.At, v.Detail, v.Seed, strings.Join(v.History, "\n  "))
}

// Violations returns which invariants were broken so far, the first ten. Those that hold at rest are for
// [Cluster.Finish] to find.
func (c *Cluster) Violations() []Violation { return slices.Clone(c.judge.broken) }

// How long Finish waits for the cluster to come to rest, and then observes whether it does.
const (
	settling  = 2 * time.Hour // longer than events are kept
	resting   = 10 * time.Minute
	repairing = time.Minute // for what a recount has reset to be put back
)

// Finish ends all faults, lets the cluster come to rest, and returns all violations. It takes 130 minutes of
// simulated time, or a little more. Migrations that hang go on hanging.
func (c *Cluster) Finish() []Violation {
	c.Inject(nil)
	c.ResetLimits(0)
	c.StartQuotaController()
	for _, p := range c.processes {
		clear(p.lags)
	}
	c.Advance(settling)
	before, resets := maps.Clone(c.writes), c.judge.resets
	c.Advance(resting)
	resets = c.judge.resets - resets
	for c.clock.now.Before(c.judge.reset.Add(repairing)) {
		c.Advance(c.judge.reset.Add(repairing).Sub(c.clock.now))
	}
	c.judge.rest(before, resets)
	return c.Violations()
}

// A judge observes a cluster from outside, with no lag, and finds which invariants the processes under test
// break.
type judge struct {
	*Cluster
	annotations map[types.UID]map[string]string // of quotas, as others than the processes wrote them
	created     map[string]bool                 // ConfigMaps that processes have created
	robbed      map[types.UID]bool              // quotas of whose room for migrations regular objects took
	resets      int                             // of status.hard, by others than the processes
	reset       time.Time                       // the latest
	broken      []Violation
}

// observe is called with every change.
func (j *judge) observe(c change) {
	o := c.object()
	switch {
	case c.kind == ConfigMaps && c.after == nil:
		delete(j.created, key(o))
	case c.kind == ConfigMaps && c.before == nil && c.tested:
		j.created[key(o)] = true
	case c.kind == ResourceQuotas && c.after != nil:
		before, _ := c.before.(*corev1.ResourceQuota)
		after, _ := c.after.(*corev1.ResourceQuota)
		if !amounts.Exceeds(after.Status.Used, after.Spec.Hard) {
			delete(j.robbed, after.UID)
		}
		if before == nil {
			before = &corev1.ResourceQuota{}
			j.annotations[after.UID] = map[string]string{}
		} else if !c.tested && !quota.Equal(before.Status.Hard, after.Status.Hard) {
			j.resets++
			j.reset = j.clock.now
		}
		if c.tested {
			j.auditWrite(c.user, before, after)
		} else {
			j.learnAnnotations(before, after)
		}
	}
}

// rob notes that what is no target pod has raised the usage of quotas to this: a regular object, or one that another
// quota has refused.
func (j *judge) rob(quotas []*corev1.ResourceQuota) {
	for _, rq := range quotas {
		if amounts.Exceeds(rq.Status.Used, rq.Spec.Hard) {
			j.robbed[rq.UID] = true
		}
	}
}

// learnAnnotations takes over what somebody changed who is no process under test.
func (j *judge) learnAnnotations(before, after *corev1.ResourceQuota) {
	known := j.annotations[after.UID]
	for name := range before.Annotations {
		if _, kept := after.Annotations[name]; !kept {
			delete(known, name)
		}
	}
	for name, value := range after.Annotations {
		if before.Annotations[name] != value {
			known[name] = value
		}
	}
}

// auditCall checks a call of a process under test, carried out or not.
func (j *judge) auditCall(user string, call Call) {
	if call.Kind == ResourceQuotas && call.writes() && !call.Status {
		j.breaks(WroteSpec, "%s calls %s of quota %s/%s", user, call.Verb, call.Namespace, call.Name)
	}
}

// auditWrite checks what a process under test made of a quota.
func (j *judge) auditWrite(user string, before, after *corev1.ResourceQuota) {
	untouched := after.DeepCopy()
	untouched.ResourceVersion, untouched.Annotations = before.ResourceVersion, before.Annotations
	untouched.Spec, untouched.Status.Hard = before.Spec, before.Status.Hard
	if !equality.Semantic.DeepEqual(before, untouched) {
		j.breaks(WroteSpec, "%s changes more of quota %s than status.hard and annotations", user, key(after))
	}
	if quota.Equal(before.Status.Hard, after.Status.Hard) {
		return
	}
	for _, name := range amounts.Names(after.Spec.Hard) {
		limit, ok := after.Status.Hard[name]
		if static := after.Spec.Hard[name]; !ok || limit.Cmp(static) < 0 {
			j.breaks(BelowStatic, "%s lowers %s of quota %s to %s, static is %s", user, name, key(after), spell(limit), spell(static))
		}
	}
	for _, name := range amounts.Names(after.Status.Hard) {
		if !has(after.Spec.Hard, name) {
			j.breaks(BelowStatic, "%s limits %s of quota %s, which static does not", user, name, key(after))
		}
	}
}

// rest checks a cluster at rest, in which so many writes were made before the last ten minutes, and status.hard
// was reset so many times since.
func (j *judge) rest(before map[writeOf]int, resets int) {
	busy := 0
	inFlight := map[string][]quota.Migration{}
	quotas := all[*corev1.ResourceQuota](&j.store, "")
	for _, rq := range quotas {
		if inFlight[rq.Namespace] == nil {
			inFlight[rq.Namespace] = migration.InFlight(j.Snapshot(rq.Namespace))
		}
		busy += len(inFlight[rq.Namespace])
	}
	j.findRestless(before, resets, busy)
	for _, name := range j.Starving() {
		j.breaks(Starved, "the target pod of migration %s is refused, although there should be headroom for it", name)
	}
	for _, rq := range quotas {
		if rq.Status.Hard != nil {
			j.findLeftover(rq, inFlight[rq.Namespace])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.created)) {
		if busy == 0 {
			j.breaks(Leftover, "%s %s is left although nothing is in flight", ConfigMaps, name)
		}
	}
}

func (j *judge) findRestless(before map[writeOf]int, resets, busy int) {
	offers := 0
	if busy > 0 {
		offers = resets + 3*busy*int(resting/time.Minute)
	}
	for _, p := range j.processes {
		for i, w := range []writeOf{{p.user, ResourceQuotas, false}, {p.user, ResourceQuotas, true}, {p.user, ConfigMaps, false}} {
			if n := j.writes[w] - before[w]; n > []int{0, offers, busy}[i] && p.tested() {
				j.breaks(Restless, "%s wrote %d times to %s in the last %v", p.user, n, w.kind, resting)
			}
			before[w] = j.writes[w] // replicas share it
		}
	}
}

// Starving returns the migrations, as namespace/name, whose target pods quota refuses now, although KubeVirt
// would create them and they fit what the policy grants. What a regular object took of the room for migrations
// is not counted as usage that lifts the limit.
func (c *Cluster) Starving() []string {
	var starving []string
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&c.store, "") {
		vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&c.store, m.Namespace, m.Spec.VMIName)
		if ok && refused(m) && c.refusals[m.Namespace] == "" && m.DeletionTimestamp == nil && vmi.DeletionTimestamp == nil && c.virt.target(m, vmi) == nil &&
			c.virt.mustWait(m, vmi) == 0 && c.judge.fits(m, vmi) {
			starving = append(starving, key(m))
		}
	}
	return starving
}

// fits reports whether m is granted, and its target pod fits if there is room for m and for no other that
// waits: the growth of a guest may not.
func (j *judge) fits(m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) bool {
	pod := j.virt.launcher(vmi)
	j.setDefaults(pod)
	load := loadOf(pod, j.clock.now)
	inFlight := migration.InFlight(j.Snapshot(vmi.Namespace))
	for _, rq := range all[*corev1.ResourceQuota](&j.store, vmi.Namespace) {
		if !load.traits.SelectedBy(rq) {
			continue
		}
		policy := j.config.Policy
		policy.Strict = policy.Strict || j.robbed[rq.UID]
		seen := quota.Under(rq, inFlight)
		if !slices.Contains(policy.Decide(rq.Spec.Hard, seen, rq.Status.Used).Granted, m.UID) {
			return false
		}
		alone := slices.DeleteFunc(seen, func(other quota.Migration) bool { return other.State < quota.Charged && other.UID != m.UID })
		for name, limit := range policy.Decide(rq.Spec.Hard, alone, rq.Status.Used).Hard {
			if wanted := amounts.Plus(rq.Status.Used[name], load.charge[name]); wanted.Cmp(limit) > 0 {
				return false
			}
		}
	}
	return true
}

// findLeftover checks what rq enforces at rest.
func (j *judge) findLeftover(rq *corev1.ResourceQuota, inFlight []quota.Migration) {
	if len(inFlight) == 0 {
		if list(rq.Status.Hard) != list(rq.Spec.Hard) {
			j.breaks(Leftover, "quota %s enforces %s at rest, static is %s", key(rq), list(rq.Status.Hard), list(rq.Spec.Hard))
		} else if known := j.annotations[rq.UID]; !maps.Equal(rq.Annotations, known) {
			j.breaks(Leftover, "annotations of quota %s are %v at rest, they were %v", key(rq), rq.Annotations, known)
		}
		return
	}
	seen := quota.Under(rq, inFlight)
	regular := j.config.Policy.Decide(rq.Spec.Hard, seen, rq.Status.Used).Regular
	least, most := corev1.ResourceList{}, corev1.ResourceList{}
	for name, static := range rq.Spec.Hard {
		least[name], most[name] = static, amounts.Max(static, regular[name])
		for _, m := range seen {
			most[name] = amounts.Plus(most[name], m.Surge[name])
			if m.State >= quota.Charged {
				least[name] = amounts.Plus(least[name], m.Surge[name])
			}
		}
	}
	if len(rq.Status.Hard) != len(least) || amounts.Exceeds(least, rq.Status.Hard) || amounts.Exceeds(rq.Status.Hard, most) {
		j.breaks(Leftover, "quota %s enforces %s at rest, it should be %s to %s", key(rq), list(rq.Status.Hard), list(least), list(most))
	}
}

func (j *judge) breaks(which Invariant, format string, args ...any) {
	if len(j.broken) < maxViolations {
		j.broken = append(j.broken, Violation{
			Invariant: which, At: j.elapsed(), Detail: fmt.Sprintf(format, args...), Seed: j.config.Seed, History: j.History(),
		})
	}
}

// list writes a list of amounts for people, sorted.
func list(of corev1.ResourceList) string { return "{" + amounts.Text(of, " ") + "}" }

func spell(q resource.Quantity) string { return q.String() }
