// Package measure compares what keeps quotas right while virtual machines migrate, on the
// same real control plane in the same run: the library, the policy that raises a quota for
// every migration that exists, nothing at all, and, as the floor, a quota that nothing can
// fill.
package measure

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// A Config says how much is measured.
type Config struct {
	VMs    int           // of the case in which all VMs of a namespace migrate at once
	Rounds int           // of each case; in a round every policy has its turn
	Turn   int           // how often a single VM migrates in one turn of a policy
	Linger time.Duration // how long a source pod goes on after its migration
	Stuck  time.Duration // after what time a migration without a target pod is stuck
	Slow   time.Duration // the log tells what happened in a migration that waits longer; zero: in none
	Log    io.Writer     // progress
}

// A Result is what came of one policy in one case.
type Result struct {
	Case, Policy string
	Migrations   int
	Delays       []time.Duration // from the VMIM to its target pod, in ascending order
	Stuck        int             // migrations without a target pod after Config.Stuck
	Writes       int             // to the quota, by the policy
	Exposure     Exposure
}

// A policy has its turn in every round.
type policy struct {
	name    string
	program process.Program // empty: there is no process
	room    int             // for how many VMs the quota is to be large enough; zero: as the case says
	last    bool            // it has a turn in the last round only, because its migrations get stuck
}

// unlimited is room that nothing fills.
const unlimited = 10000

// Floor is the policy that the others are compared with.
const Floor = "no limit"

var (
	headroom  = policy{name: "headroom", program: process.Headroom}
	noLimit   = policy{name: Floor, room: unlimited}
	pending   = policy{name: "raise for every pending migration, lower at Succeeded", program: process.RaisePending}
	doNothing = policy{name: "do nothing", last: true}
)

// A setting is how virtual machines migrate.
type setting struct {
	name     string
	vms      int // in one namespace, which migrate at once
	room     int // for how many VMs their quota is large enough
	turn     int // how often they migrate in one turn of a policy
	policies []policy
}

func (c Config) settings() []setting {
	return []setting{
		{"one VM on a full quota", 1, 1, c.Turn, []policy{headroom, noLimit, pending, doNothing}},
		{"one VM, and room for its target", 1, 2, c.Turn, []policy{headroom, noLimit}},
		{fmt.Sprintf("%d VMs on a full quota at once", c.VMs), c.VMs, c.VMs, 1, []policy{headroom, noLimit, pending, doNothing}},
	}
}

// Run measures all policies on a bed. They take turns, so that all meet the machine as it
// is. Every turn, and every migration of a single VM, starts from rest: no VM migrates, no
// source pod is left, and status.hard is spec.hard.
func Run(t try.T, b *bed.Bed, c Config) (results []Result) {
	stage := onbed.NewStage(t, b, "", nil)
	for _, s := range c.settings() {
		results = append(results, c.run(t, stage, s)...)
	}
	return results
}

func (c Config) run(t try.T, stage *onbed.Stage, s setting) (results []Result) {
	var fleets []*onbed.Fleet
	for _, p := range s.policies {
		fleets = append(fleets, stage.Fleet(t, "measure", s.vms, onbed.FleetOptions{Linger: c.Linger, Room: max(s.room, p.room)}))
		results = append(results, Result{Case: s.name, Policy: p.name})
	}
	for round := range c.Rounds {
		fmt.Fprintf(c.Log, "%s: round %d of %d\n", s.name, round+1, c.Rounds)
		for i, p := range s.policies {
			if results[i].Stuck == 0 && (!p.last || round == c.Rounds-1) {
				c.takeTurn(t, stage, fleets[i], p, s, round, &results[i])
			}
		}
	}
	for i, f := range fleets {
		results[i].read(f)
		c.tellSlow(s.name+", "+s.policies[i].name, f.Audit())
	}
	return results
}

// takeTurn runs the process of a policy while the VMs of a fleet migrate.
func (c Config) takeTurn(t try.T, stage *onbed.Stage, f *onbed.Fleet, p policy, s setting, round int, result *Result) {
	if p.program != "" {
		started := stage.StartProgram(t, p.program, nil)
		defer func() { require.NoError(t, started.Stop()) }()
	}
	for n := range s.turn {
		try.Sleep(t, 500*time.Millisecond) // so that all end what a start or the last migration left to do
		var names []string
		for i, vm := range f.VMs {
			names = append(names, fmt.Sprintf("m%d-%d-%d", round, n, i))
			f.CreateMigration(scenario.Migrate{Name: names[i], VM: vm})
		}
		result.Migrations += len(names)
		if result.Stuck = c.stuck(f, names); result.Stuck > 0 {
			return // that was the last turn
		}
		f.AwaitRest()
	}
}

// stuck waits until all migrations have a target pod, and returns how many have none.
func (c Config) stuck(f *onbed.Fleet, names []string) (left int) {
	f.Within(c.Stuck, func(s scenario.State) bool {
		there := map[string]bool{}
		for _, m := range s.Migrations {
			there[m.Name] = m.IsFinal() || m.TargetIsCreated() || s.Is(m.Name, scenario.Charged)
		}
		left = 0
		for _, name := range names {
			if !there[name] {
				left++
			}
		}
		return left == 0
	})
	return left
}

// headings are those of the table.
var headings = []string{
	"case", "policy", "migrations", "VMIM to target pod, p50", "p90", "max", "as multiples of no limit",
	"writes per migration", "exposure per migration, GiB·s", "most room at once, VMs", "stuck",
}

// Table writes results as a table in Markdown.
func Table(out io.Writer, results []Result) error {
	floors := map[string]Result{}
	for _, r := range results {
		if r.Policy == Floor {
			floors[r.Case] = r
		}
	}
	rows := [][]string{headings, {}}
	for range headings {
		rows[1] = append(rows[1], "---")
	}
	for _, r := range results {
		rows = append(rows, r.row(floors[r.Case]))
	}
	for _, row := range rows {
		if _, err := fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | ")); err != nil {
			return err
		}
	}
	return nil
}

func (r Result) row(floor Result) []string {
	row := []string{r.Case, r.Policy, fmt.Sprint(r.Migrations)}
	var multiples []string
	for _, p := range []int{50, 90, 100} {
		if len(r.Delays) == 0 {
			row = append(row, "never")
			continue
		}
		row = append(row, Percentile(r.Delays, p).Round(time.Millisecond).String())
		if least := Percentile(floor.Delays, p); least > 0 {
			multiples = append(multiples, fmt.Sprintf("%.2f", float64(Percentile(r.Delays, p))/float64(least)))
		}
	}
	if len(multiples) == 0 || r.Policy == Floor {
		multiples = []string{"–"}
	}
	row = append(row, strings.Join(multiples, " / "))
	if r.Policy == Floor {
		return append(row, "–", "–", "–", fmt.Sprint(r.Stuck))
	}
	n := float64(r.Migrations)
	return append(row, fmt.Sprintf("%.2f", float64(r.Writes)/n), fmt.Sprintf("%.3f", r.Exposure.Total/n/(1<<30)),
		fmt.Sprintf("%.1f", r.Exposure.Most/onbed.FleetMemory), fmt.Sprint(r.Stuck))
}

// Percentile returns the p-th percentile of sorted durations; zero of none.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100]
}

// read reads in the audit log what a policy came to.
func (r *Result) read(f *onbed.Fleet) {
	r.Delays, r.Writes = delays(f.Audit()), f.Writes()
	r.Exposure = exposure(f.Versions(), f.Static, f.Regular)
}

// delays returns for how long every migration waited for its target pod, in ascending order.
func delays(events []bed.AuditEvent) []time.Duration {
	var found []time.Duration
	for _, w := range waits(events) {
		found = append(found, w.to.Sub(w.from))
	}
	slices.Sort(found)
	return found
}

// A wait is that of a migration for its target pod, from the request to create the one to
// the answer that the other is there.
type wait struct {
	name     string
	from, to time.Time
}

// waits returns those of the migrations that got a target pod.
func waits(events []bed.AuditEvent) []wait {
	created := map[string]time.Time{}
	var found []wait
	for _, e := range events {
		switch {
		case e.Verb != "create" || e.Subresource != "" || e.Code != 201:
		case e.Resource == "virtualmachineinstancemigrations":
			created[e.Name] = e.Received
		case !created[onbed.TargetOf(e)].IsZero():
			name := onbed.TargetOf(e)
			found = append(found, wait{name, created[name], e.Answered})
		}
	}
	return found
}

// An Exposure is room in limits.memory that regular pods could have taken and should not.
type Exposure struct {
	Total float64 // byte seconds
	Most  float64 // bytes, at one time
}

// exposure sums up over time what is enforced, and neither used nor available to regular
// workloads by the static limits. Of what is used, regular workloads have no more than
// regular, because all that they are is VMs that migrate.
func exposure(versions []onbed.QuotaVersion, static, regular corev1.ResourceList) (found Exposure) {
	memory := func(list corev1.ResourceList) float64 {
		q := list[corev1.ResourceLimitsMemory]
		return q.AsApproximateFloat64()
	}
	room := func(rq onbed.QuotaVersion) float64 {
		used := memory(rq.Status.Used)
		return max(0, memory(rq.Status.Hard)-used-max(0, memory(static)-min(used, memory(regular))))
	}
	for i, rq := range versions {
		found.Most = max(found.Most, room(rq))
		if i+1 < len(versions) {
			found.Total += room(rq) * max(0, versions[i+1].Event.Answered.Sub(rq.Event.Answered).Seconds())
		}
	}
	return found
}

// tellSlow tells what the API server was asked in the namespace of a migration, from before its
// VMIM was created to after its target pod was, for every migration that took longer than c.Slow.
func (c Config) tellSlow(what string, events []bed.AuditEvent) {
	for _, w := range waits(events) {
		if took := w.to.Sub(w.from); c.Slow > 0 && took > c.Slow {
			fmt.Fprintf(c.Log, "%s: %s took %v:%s\n", what, w.name, took.Round(time.Millisecond),
				onbed.Timeline(events, w.from, w.from.Add(-200*time.Millisecond), w.to.Add(100*time.Millisecond)))
		}
	}
}
