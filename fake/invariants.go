package fake

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota/amounts"
)

// An Invariant is what has to hold whatever happens.
type Invariant string

const (
	// WroteSpec says that a process called a ResourceQuota other than through /status,
	// carried out or not, or changed more there than status.hard and annotations.
	WroteSpec Invariant = "WroteSpec"
	// BelowStatic says that a process set status.hard below spec.hard, or dropped or added
	// a limit.
	BelowStatic Invariant = "BelowStatic"
	// Gained says that a regular object was let in although usage went past the most that
	// could rightly be enforced at any time in the last Config.Slack: static or regular
	// usage, whichever is more, and the surge of the migrations that are charged or that
	// may be offered room. What regular objects take of such room is no violation. It does
	// not lift the limit, but for what the largest migration needs that waits. How
	// much room lay open is told by [Cluster.Exposure].
	Gained Invariant = "Gained"
	// Starved says that quota refused a granted target pod for longer than Config.Patience.
	Starved Invariant = "Starved"
	// Leftover says that at rest, status.hard is not spec.hard to the byte (or, while a
	// migration hangs, more than could be right, or less than static and the surge of what
	// is charged), or that annotations or objects of a process are left.
	Leftover Invariant = "Leftover"
	// Restless says that at rest, a process goes on writing. While migrations hang, it may
	// write once for each time that somebody else sets status.hard, and three times a
	// minute for each of them and each quota: an offer is announced, made, and ended. To a
	// stored ledger it may write once for each: the next refusal may say something new.
	Restless Invariant = "Restless"
)

// maxViolations is how many are remembered; the first are the ones to look at.
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

// Violations returns which invariants were broken so far. Leftover and Restless are for
// [Cluster.Finish] to find.
func (c *Cluster) Violations() []Violation { return slices.Clone(c.judge.broken) }

// Exposure returns the room that regular workloads could have taken and should not have,
// summed up over time and all quotas: in byte seconds, core seconds, or object seconds.
// It is what was enforced (status.hard) beyond static or regular usage, whichever is
// more, and beyond the surge of the charged migrations.
func (c *Cluster) Exposure(name corev1.ResourceName) float64 { return c.judge.exposure[name] }

// How long Finish waits for the cluster to come to rest, and then looks whether it does.
const (
	settling  = 2 * time.Hour // longer than events are kept
	resting   = 10 * time.Minute
	repairing = time.Minute // for what a recount has reset to be put back
)

// Finish ends all faults, lets the cluster come to rest, and returns all violations. It
// takes 130 minutes of simulated time, or a little more. Migrations that hang go on hanging.
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
	c.judge.findRestless(before, c.judge.resets-resets)
	for quiet := c.judge.reset.Add(repairing); c.clock.now.Before(quiet); quiet = c.judge.reset.Add(repairing) {
		c.Advance(quiet.Sub(c.clock.now))
	}
	for _, left := range c.judge.leftLimits() {
		c.judge.breaks(Leftover, "%s", left)
	}
	c.judge.findLeftovers()
	return c.Violations()
}

func (j *judge) findRestless(before map[writeOf]int, resets int) {
	busy, offers := j.busy(), 0
	if busy > 0 {
		offers = resets + 3*busy*int(resting/time.Minute)
	}
	for _, p := range j.processes {
		for _, w := range []writeOf{{p.user, ResourceQuotas, false}, {p.user, ResourceQuotas, true}, {p.user, ConfigMaps, false}} {
			n := j.writes[w] - before[w]
			if w.kind == ResourceQuotas && !w.status && n > 0 || w.status && n > offers || w.kind == ConfigMaps && n > busy {
				j.breaks(Restless, "%s wrote %d times to %s in the last %v", p.user, n, w.kind, resting)
			}
			before[w] = j.writes[w] // replicas share it
		}
	}
}

// busy returns how many migrations are in flight under quotas.
func (j *judge) busy() int {
	busy := 0
	for _, a := range j.accounts {
		busy += j.inFlight[a.namespace]
	}
	return busy
}

// leftLimits returns which limits are not what they should be at rest.
func (j *judge) leftLimits() []string {
	var left []string
	for _, a := range j.accounts {
		rq, ok := find[*corev1.ResourceQuota](&j.store, a.namespace, a.name)
		if !ok || len(a.ideal) == 0 {
			continue
		}
		most := a.ideal[len(a.ideal)-1].hard
		switch {
		case j.inFlight[a.namespace] > 0:
			if !a.suits(rq, most) {
				left = append(left, fmt.Sprintf("quota %s enforces %s at rest, it should be %s to %s", key(rq), list(rq.Status.Hard), list(a.least), list(most)))
			}
		case list(rq.Status.Hard) != list(rq.Spec.Hard):
			left = append(left, fmt.Sprintf("quota %s enforces %s at rest, static is %s", key(rq), list(rq.Status.Hard), list(rq.Spec.Hard)))
		case !maps.Equal(rq.Annotations, a.annotations):
			left = append(left, fmt.Sprintf("annotations of quota %s are %v at rest, they were %v", key(rq), rq.Annotations, a.annotations))
		}
	}
	return left
}

func (j *judge) findLeftovers() {
	if j.busy() > 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(j.leftovers)) {
		j.breaks(Leftover, "%s is left although nothing is in flight", name)
	}
}

// suits reports whether what rq enforces is right while migrations are in flight: at least
// static and the surge of what is charged, and no more than most or what is used.
func (a *account) suits(rq *corev1.ResourceQuota, most corev1.ResourceList) bool {
	if len(rq.Status.Hard) != len(rq.Spec.Hard) {
		return false
	}
	for name := range rq.Spec.Hard {
		limit, limited := rq.Status.Hard[name]
		if !limited || limit.Cmp(a.least[name]) < 0 || limit.Cmp(most[name]) > 0 && limit.Cmp(rq.Status.Used[name]) > 0 {
			return false
		}
	}
	return true
}

// list writes a list of amounts for people, sorted.
func list(of corev1.ResourceList) string { return "{" + amounts.Text(of, " ") + "}" }
