package fake

import (
	"fmt"
	"maps"
	"slices"
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

// A judge watches a cluster from outside, with no lag, and tells which invariants the
// processes under test break.
type judge struct {
	*Cluster
	accounts  []*account // in the order of creation
	unseen    map[string]bool
	inFlight  map[string]int // by namespace
	starving  map[types.UID]starved
	leftovers map[string]bool // objects that processes have created
	exposure  map[corev1.ResourceName]float64
	resets    int       // of status.hard, by others than the processes
	reset     time.Time // the latest
	broken    []Violation
}

// A starved migration waits for its target pod, and should not.
type starved struct {
	namespace string
	since     time.Time
}

// An account is what the judge knows of one quota.
type account struct {
	namespace, name string
	uid             types.UID
	annotations     map[string]string   // that others than the processes wrote
	ideal           []sample            // what status.hard could be of late
	least           corev1.ResourceList // static, and the surge of what is charged
	closed          corev1.ResourceList // the same, lifted by regular usage
	// taken is what regular objects took of the room for migrations. It does not lift
	// the limit, as other regular usage above static does, but for as much as the largest
	// migration needs that waits: one theft must not stop the others for good.
	taken   corev1.ResourceList
	exposed map[corev1.ResourceName]float64
}

// A sample is the most that status.hard may be, until the next one: static, lifted by
// regular usage, and the surge of all migrations that are charged or may have an offer.
type sample struct {
	at   time.Time
	hard corev1.ResourceList
}

func newJudge(c *Cluster) *judge {
	return &judge{
		Cluster:   c,
		unseen:    map[string]bool{},
		inFlight:  map[string]int{},
		starving:  map[types.UID]starved{},
		leftovers: map[string]bool{},
		exposure:  map[corev1.ResourceName]float64{},
	}
}

// observe is told of every change.
func (j *judge) observe(c change) {
	o := c.object()
	switch c.kind {
	case ResourceQuotas:
		j.auditQuota(c)
	case ConfigMaps:
		name := string(c.kind) + " " + key(o)
		if c.after == nil {
			delete(j.leftovers, name)
		} else if c.before == nil && c.tested {
			j.leftovers[name] = true
		}
		return
	case Pods:
		if !mattersToQuota(c) {
			return
		}
	case Namespaces:
		return
	default:
	}
	j.unseen[o.GetNamespace()] = true
	for _, s := range j.starving {
		j.unseen[s.namespace] = true // KubeVirt's limits are those of the whole cluster
	}
}

// mattersToQuota leaves out what happens to pods on their nodes.
func mattersToQuota(c change) bool {
	before, existed := c.before.(*corev1.Pod)
	after, exists := c.after.(*corev1.Pod)
	return !existed || !exists || ended(before) != ended(after)
}

func (j *judge) account(rq *corev1.ResourceQuota) *account {
	for _, a := range j.accounts {
		if a.uid == rq.UID {
			return a
		}
	}
	a := &account{
		namespace: rq.Namespace, name: rq.Name, uid: rq.UID,
		annotations: map[string]string{}, taken: corev1.ResourceList{},
	}
	maps.Copy(a.annotations, rq.Annotations)
	j.accounts = append(j.accounts, a)
	return a
}

// auditQuota checks what the processes write, and learns what others write.
func (j *judge) auditQuota(c change) {
	before, _ := c.before.(*corev1.ResourceQuota)
	after, _ := c.after.(*corev1.ResourceQuota)
	if after == nil {
		j.accounts = slices.DeleteFunc(j.accounts, func(a *account) bool { return a.uid == before.UID })
		return
	}
	a := j.account(after)
	switch {
	case before == nil:
	case c.tested:
		j.auditWrite(c.user, before, after)
	default:
		a.learnAnnotations(before, after)
		if !quota.Equal(before.Status.Hard, after.Status.Hard) {
			j.resets++
			j.reset = j.clock.now
		}
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

// auditCall checks a call of a process under test, carried out or not.
func (j *judge) auditCall(user string, call Call) {
	if call.Kind == ResourceQuotas && call.writes() && !call.Status {
		j.breaks(WroteSpec, "%s calls %s of quota %s/%s", user, call.Verb, call.Namespace, call.Name)
	}
}

// learnAnnotations takes over what somebody changed who is no process under test.
func (a *account) learnAnnotations(before, after *corev1.ResourceQuota) {
	for name := range before.Annotations {
		if _, ok := after.Annotations[name]; !ok {
			delete(a.annotations, name)
		}
	}
	for name, value := range after.Annotations {
		if before.Annotations[name] != value {
			a.annotations[name] = value
		}
	}
}

// timePasses is told before the clock moves.
func (j *judge) timePasses(to time.Time) {
	for _, namespace := range slices.Sorted(maps.Keys(j.unseen)) {
		j.look(namespace)
	}
	for _, a := range j.accounts {
		for _, name := range slices.Sorted(maps.Keys(a.exposed)) {
			j.exposure[name] += a.exposed[name] * to.Sub(j.clock.now).Seconds()
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(j.starving)) {
		since := j.starving[uid].since
		if end := since.Add(j.config.Patience); j.clock.now.Before(end) && !to.Before(end) {
			j.breaks(Starved, "the target pod of migration %s is refused since %v, although there should be headroom for it", uid, since.Sub(epoch))
		}
	}
}

// look finds out how things should be in namespace now.
func (j *judge) look(namespace string) {
	if !j.unseen[namespace] {
		return
	}
	delete(j.unseen, namespace)
	s := j.Snapshot(namespace)
	inFlight := migration.InFlight(s)
	j.inFlight[namespace] = len(inFlight)
	granted := map[types.UID]quota.Migration{}
	for i := range inFlight {
		granted[inFlight[i].UID] = inFlight[i]
	}
	for _, a := range j.accounts {
		rq, ok := find[*corev1.ResourceQuota](&j.store, a.namespace, a.name)
		if a.namespace != namespace || !ok {
			continue
		}
		seen := quota.Under(rq, inFlight)
		d := j.config.Policy.Decide(rq.Spec.Hard, seen, rq.Status.Used)
		a.learnIdeal(j.clock.now, j.clock.now.Add(-j.config.Slack), j.limits(a, rq, seen, d.Regular))
		a.expose(rq, seen, d.Regular)
		for i := range seen {
			if !slices.Contains(d.Granted, seen[i].UID) || isShort(seen[i], d, rq.Status.Used) {
				delete(granted, seen[i].UID)
			}
		}
	}
	j.findStarving(namespace, s, granted)
}

// isShort reports whether the rule has no room for what m does not hold yet: with a strict policy
// usage above static takes it, also if m is granted because it is charged for a part.
func isShort(m quota.Migration, d quota.Decision, used corev1.ResourceList) bool {
	for name, limit := range d.Hard {
		need := amounts.Minus(m.Surge[name], m.Held[name])
		if wanted := amounts.Plus(used[name], need); m.Held != nil && need.Sign() > 0 && wanted.Cmp(limit) > 0 {
			return true
		}
	}
	return false
}

// limits returns how much may be enforced at most, and sets a.closed, which is how much
// while no offer is open, and a.least.
func (j *judge) limits(a *account, rq *corev1.ResourceQuota, migrations []quota.Migration, regular corev1.ResourceList) corev1.ResourceList {
	policy := j.config.Policy
	policy.Eager = true // an offer may be open before KubeVirt has tried
	granted := policy.Decide(rq.Spec.Hard, migrations, rq.Status.Used).Granted
	most := corev1.ResourceList{}
	a.least, a.closed = corev1.ResourceList{}, corev1.ResourceList{}
	for name, static := range rq.Spec.Hard {
		above := amounts.Minus(regular[name], static)
		a.taken[name] = amounts.Min(a.taken[name], above)
		least, base, forgiven := static.DeepCopy(), static.DeepCopy(), resource.Quantity{}
		if !policy.Strict {
			base = amounts.Plus(base, amounts.Minus(above, a.taken[name]))
		}
		open, closed := base, base
		for i := range migrations {
			surge := amounts.Minus(migrations[i].Surge[name], resource.Quantity{})
			if migrations[i].State >= quota.Charged {
				least, closed = amounts.Plus(least, surge), amounts.Plus(closed, surge)
			} else if surge.Cmp(forgiven) > 0 {
				forgiven = surge
			}
			if slices.Contains(granted, migrations[i].UID) {
				open = amounts.Plus(open, surge)
			}
		}
		if !policy.Strict {
			open = amounts.Plus(open, amounts.Min(forgiven, a.taken[name]))
		}
		most[name], a.closed[name], a.least[name] = open, closed, least
	}
	return most
}

func (a *account) learnIdeal(now, since time.Time, hard corev1.ResourceList) {
	if n := len(a.ideal); n == 0 || !quota.Equal(a.ideal[n-1].hard, hard) {
		a.ideal = append(a.ideal, sample{at: now, hard: hard})
	}
	for len(a.ideal) > 1 && a.ideal[1].at.Before(since) {
		a.ideal = a.ideal[1:]
	}
}

// expose finds the room that regular workloads could take and should not have: what is
// enforced, less static or regular usage, less what migrations are charged for.
func (a *account) expose(rq *corev1.ResourceQuota, migrations []quota.Migration, regular corev1.ResourceList) {
	a.exposed = map[corev1.ResourceName]float64{}
	for name, static := range rq.Spec.Hard {
		enforced, used := rq.Status.Hard[name], regular[name]
		room := enforced.AsApproximateFloat64() - max(static.AsApproximateFloat64(), used.AsApproximateFloat64())
		for i := range migrations {
			if surge := migrations[i].Surge[name]; migrations[i].State >= quota.Charged {
				room -= surge.AsApproximateFloat64()
			}
		}
		if room > 0 {
			a.exposed[name] = room
		}
	}
}

// findStarving notes whose target pod is refused although it is granted and KubeVirt
// would create it.
func (j *judge) findStarving(namespace string, s migration.Snapshot, granted map[types.UID]quota.Migration) {
	exists := map[types.UID]bool{}
	for _, m := range s.Migrations {
		exists[m.UID] = true
		vmi, ok := find[*kubevirtv1.VirtualMachineInstance](&j.store, m.Namespace, m.Spec.VMIName)
		claim, isGranted := granted[m.UID]
		starves := ok && isGranted && refused(m) && m.DeletionTimestamp == nil && vmi.DeletionTimestamp == nil &&
			j.virt.target(m, vmi) == nil && j.virt.mustWait(m, vmi) == 0 && j.fits(claim, m, vmi)
		if _, known := j.starving[m.UID]; !starves {
			delete(j.starving, m.UID)
		} else if !known {
			j.starving[m.UID] = starved{namespace: m.Namespace, since: j.clock.now}
		}
	}
	maps.DeleteFunc(j.starving, func(uid types.UID, s starved) bool { return s.namespace == namespace && !exists[uid] })
}

// fits reports whether the target pod of m fits if there is room for its claim, and for
// no other: the growth of a guest may not.
func (j *judge) fits(claim quota.Migration, m *kubevirtv1.VirtualMachineInstanceMigration, vmi *kubevirtv1.VirtualMachineInstance) bool {
	pod := j.virt.launcher(vmi)
	j.setDefaults(pod)
	load := loadOf(pod, j.clock.now)
	for _, a := range j.accounts {
		rq, ok := find[*corev1.ResourceQuota](&j.store, a.namespace, a.name)
		if !ok || a.namespace != m.Namespace || !load.traits.SelectedBy(rq) {
			continue
		}
		var surge corev1.ResourceList
		for _, seen := range quota.Under(rq, []quota.Migration{claim}) {
			surge = seen.Surge
		}
		for name, limit := range a.closed {
			limit = amounts.Plus(limit, surge[name])
			if !j.config.Policy.Strict {
				limit.Add(amounts.Min(surge[name], a.taken[name]))
			}
			if need := amounts.Plus(rq.Status.Used[name], load.charge[name]); need.Cmp(limit) > 0 {
				return false
			}
		}
	}
	return true
}

// admitted is told what quota admission has charged, after look.
func (j *judge) admitted(user string, o object) {
	if forMigration(user, o) {
		return
	}
	load := loadOf(o, j.clock.now)
	for _, a := range j.accounts {
		rq, ok := find[*corev1.ResourceQuota](&j.store, a.namespace, a.name)
		if !ok || a.namespace != o.GetNamespace() || !load.traits.SelectedBy(rq) {
			continue
		}
		for _, name := range amounts.Names(load.charge) {
			used, limited := rq.Status.Used[name]
			if !limited || !has(rq.Spec.Hard, name) {
				continue
			}
			// What is beyond the limit without offers was room for a migration.
			beyond := amounts.Minus(used, a.closed[name])
			a.taken[name] = amounts.Plus(a.taken[name], amounts.Min(beyond, load.charge[name]))
			if !a.allowed(name, used, j.clock.now.Add(-j.config.Slack)) {
				j.breaks(Gained, "%s got %s %s in: %s of quota %s is used up to %s, of late no more than %s was right",
					user, kindOf(o), o.GetName(), name, key(rq), spell(used), spell(a.ideal[len(a.ideal)-1].hard[name]))
			}
		}
	}
}

// allowed reports whether used was within what was right at any time since.
func (a *account) allowed(name corev1.ResourceName, used resource.Quantity, since time.Time) bool {
	for i, s := range a.ideal {
		over := i+1 < len(a.ideal) && a.ideal[i+1].at.Before(since)
		if limit := s.hard[name]; !over && used.Cmp(limit) <= 0 {
			return true
		}
	}
	return false
}

func (j *judge) breaks(which Invariant, format string, args ...any) {
	if len(j.broken) == maxViolations {
		return
	}
	j.broken = append(j.broken, Violation{
		Invariant: which, At: j.elapsed(), Detail: fmt.Sprintf(format, args...), Seed: j.config.Seed, History: j.history.last(),
	})
}
