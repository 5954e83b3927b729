package fake

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// An Invariant is what has to hold whatever happens.
type Invariant string

const (
	// BelowStatic says that a process wrote a limit below the static one, or dropped it.
	BelowStatic Invariant = "BelowStatic"
	// Gained says that a regular object was let in although usage went past what the limit should
	// have been at any time in the last Config.Slack. What regular workloads take of
	// the headroom that a blocked migration rightly has is no violation; how much lay
	// open is told by [Cluster.Exposure].
	Gained Invariant = "Gained"
	// Starved says that quota refused a granted target pod for longer than Config.Patience.
	Starved Invariant = "Starved"
	// Leftover says that at rest, limits are not static to the byte (or, while a migration hangs,
	// more than they should be, or too little for what is charged), or annotations or objects of a process are left.
	Leftover Invariant = "Leftover"
	// Restless says that at rest, a process goes on writing.
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
	settling = 2 * time.Hour // longer than events are kept
	resting  = 10 * time.Minute
)

// Finish ends all faults, lets the cluster come to rest, and returns all violations. It
// takes 130 minutes of simulated time. Migrations that hang go on hanging.
func (c *Cluster) Finish() []Violation {
	c.Inject(nil)
	for _, p := range c.processes {
		clear(p.lags)
	}
	c.Advance(settling)
	before := maps.Clone(c.writes)
	c.Advance(resting)
	c.judge.findRestless(before)
	c.judge.findLeftovers()
	return c.Violations()
}

func (j *judge) findRestless(before map[writeOf]int) {
	for _, p := range j.processes {
		for _, kind := range []Kind{ResourceQuotas, ConfigMaps} {
			w := writeOf{p.user, kind}
			if n := j.writes[w] - before[w]; n > 0 {
				j.breaks(Restless, "%s wrote %d times to %s in the last %v", p.user, n, kind, resting)
			}
			before[w] = j.writes[w] // replicas share it
		}
	}
}

func (j *judge) findLeftovers() {
	busy := 0
	for _, a := range j.accounts {
		rq, ok := find[*corev1.ResourceQuota](&j.store, a.namespace, a.name)
		if !ok || len(a.ideal) == 0 {
			continue
		}
		n := j.inFlight[a.namespace]
		busy += n
		ideal := a.ideal[len(a.ideal)-1].hard
		switch {
		case n > 0 && !a.suits(rq, ideal):
			j.breaks(Leftover, "limits of quota %s are %s at rest, they should be %s", key(rq), list(rq.Spec.Hard), list(ideal))
		case n > 0, !quota.Equal(ideal, a.static) && quota.Equal(rq.Spec.Hard, ideal):
		case list(rq.Spec.Hard) != list(a.static):
			j.breaks(Leftover, "limits of quota %s are %s at rest, static is %s", key(rq), list(rq.Spec.Hard), list(a.static))
		case !maps.Equal(rq.Annotations, a.annotations):
			j.breaks(Leftover, "annotations of quota %s are %v at rest, they were %v", key(rq), rq.Annotations, a.annotations)
		}
	}
	if busy > 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(j.leftovers)) {
		j.breaks(Leftover, "%s is left although nothing is in flight", name)
	}
}

// suits reports whether the limits of rq are right while migrations are in flight: they
// are no more than ideal, no less than static, and what is charged has room in them as far
// as it should. They need not be ideal, if all fit into less.
func (a *account) suits(rq *corev1.ResourceQuota, ideal corev1.ResourceList) bool {
	if len(rq.Spec.Hard) != len(a.static) {
		return false
	}
	for name, static := range a.static {
		limit, most, used := rq.Spec.Hard[name], ideal[name], rq.Status.Used[name]
		short := limit.Cmp(used) < 0 && limit.Cmp(most) < 0
		if limit.Cmp(most) > 0 || limit.Cmp(static) < 0 || short {
			return false
		}
	}
	return true
}

// list writes a list of amounts for people, sorted.
func list(amounts corev1.ResourceList) string {
	parts := make([]string, 0, len(amounts))
	for _, name := range names(amounts) {
		parts = append(parts, string(name)+"="+spell(amounts[name]))
	}
	return "{" + strings.Join(parts, " ") + "}"
}
