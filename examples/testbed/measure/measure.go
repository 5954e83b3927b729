// Package measure compares what keeps quotas right while virtual machines migrate, on the
// same real control plane in the same run: the library, the policy that raises a quota for
// every migration that exists, nothing at all, and, as the floor, a quota that nothing can
// fill.
package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
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
func Run(ctx context.Context, b *bed.Bed, c Config) ([]Result, error) {
	var results []Result
	for _, s := range c.settings() {
		found, err := c.run(ctx, b, s)
		if err != nil {
			return results, fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, found...)
	}
	return results, nil
}

func (c Config) run(ctx context.Context, b *bed.Bed, s setting) (results []Result, err error) {
	stage, err := onbed.NewStage(ctx, b, "", io.Discard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	fleets := make([]*onbed.Fleet, len(s.policies))
	for i, p := range s.policies {
		if fleets[i], err = stage.Fleet(ctx, "measure", s.vms, onbed.Linger(c.Linger), onbed.RoomFor(max(s.room, p.room))); err != nil {
			return nil, err
		}
		results = append(results, Result{Case: s.name, Policy: p.name})
	}
	for round := 1; round <= c.Rounds; round++ {
		fmt.Fprintf(c.Log, "%s: round %d of %d\n", s.name, round, c.Rounds)
		for i, p := range s.policies {
			if results[i].Stuck > 0 || p.last && round < c.Rounds {
				continue
			}
			if err := c.takeTurn(ctx, stage, fleets[i], p, s, round, &results[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	for i, f := range fleets {
		events, err := f.Audit()
		if err != nil {
			return nil, err
		}
		if err := results[i].read(f, events); err != nil {
			return nil, err
		}
		tellSlow(c.Log, s.name+", "+s.policies[i].name, events, c.Slow)
		if err := f.Close(ctx); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// takeTurn runs the process of a policy while the VMs of a fleet migrate.
func (c Config) takeTurn(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, p policy, s setting, round int, result *Result) (err error) {
	if p.program != "" {
		started, err := stage.StartProgram(ctx, p.program, io.Discard)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, started.Stop()) }()
	}
	for n := 1; n <= s.turn; n++ {
		names, err := migrateAll(ctx, f, fmt.Sprintf("m%d-%d-", round, n))
		if err != nil {
			return err
		}
		result.Migrations += len(names)
		if result.Stuck, err = c.stuck(ctx, f, names); err != nil {
			return err
		}
		if result.Stuck > 0 {
			return nil // that was the last turn
		}
		if err := f.AwaitRest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// migrateAll migrates all VMs at once, and returns the names of their migrations.
func migrateAll(ctx context.Context, f *onbed.Fleet, prefix string) ([]string, error) {
	var names []string
	for i, vm := range f.VMs {
		name := fmt.Sprintf("%s%d", prefix, i+1)
		if err := f.CreateMigration(ctx, scenario.Migrate{Name: name, VM: vm}); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// stuck waits until all migrations have a target pod, and returns how many have none.
func (c Config) stuck(ctx context.Context, f *onbed.Fleet, names []string) (int, error) {
	waiting, cancel := context.WithTimeout(ctx, c.Stuck)
	defer cancel()
	left := 0
	err := f.Await(waiting, "all targets are there", func(s scenario.State) bool {
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
	if err != nil && (waiting.Err() == nil || ctx.Err() != nil) {
		return left, err
	}
	return left, nil
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
		row = append(row, percentile(r.Delays, p).Round(time.Millisecond).String())
		if least := percentile(floor.Delays, p); least > 0 {
			multiples = append(multiples, fmt.Sprintf("%.2f", float64(percentile(r.Delays, p))/float64(least)))
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

// percentile returns the p-th percentile of sorted durations; zero of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100]
}
