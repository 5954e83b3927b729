// Package measure compares what keeps quotas right while virtual machines migrate, on the
// same real control plane in the same run: the library, the policy that raises a quota for
// every migration that exists, and nothing at all.
package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/quota"
)

// A Config says how much is measured.
type Config struct {
	VMs    int           // in a namespace whose quota they fill; all migrate at once
	Rounds int           // how often they do
	Linger time.Duration // how long a source pod goes on after its migration
	Stuck  time.Duration // after what time a migration without a target pod is stuck
	Log    io.Writer     // progress
}

// A Result is what came of one policy.
type Result struct {
	Policy     string
	Migrations int
	Delays     []time.Duration // from the VMIM to its target pod, in ascending order
	Stuck      int             // migrations without a target pod after Config.Stuck
	Writes     int             // to quotas
	Exposure   float64         // byte seconds of limits.memory; see exposure
}

// policies in the order of the table.
var policies = []struct {
	name    string
	program process.Program
}{
	{"headroom", process.Headroom},
	{"raise for every pending migration, lower at Succeeded", process.RaisePending},
	{"do nothing", ""},
}

// Run measures all policies on a bed, one after the other.
func Run(ctx context.Context, b *bed.Bed, c Config) ([]Result, error) {
	var results []Result
	for _, policy := range policies {
		fmt.Fprintf(c.Log, "%s: %d VMs migrate at once, %d times\n", policy.name, c.VMs, c.Rounds)
		result, err := run(ctx, b, c, policy.program)
		if err != nil {
			return results, fmt.Errorf("%s: %w", policy.name, err)
		}
		result.Policy = policy.name
		results = append(results, result)
	}
	return results, nil
}

func run(ctx context.Context, b *bed.Bed, c Config, program process.Program) (Result, error) {
	stage, err := onbed.NewStage(ctx, b, program, io.Discard)
	if err != nil {
		return Result{}, err
	}
	f, err := stage.Fleet(ctx, "measure", c.VMs, onbed.Linger(c.Linger))
	if err != nil {
		return Result{}, errors.Join(err, stage.Close())
	}
	result := Result{}
	for round := 1; round <= c.Rounds && result.Stuck == 0; round++ {
		stuck, err := migrateAll(ctx, f, c, round)
		if err != nil {
			return Result{}, errors.Join(err, stage.Close())
		}
		result.Migrations += len(f.VMs)
		result.Stuck += stuck
	}
	events, err := f.Audit()
	if err != nil {
		return Result{}, errors.Join(err, stage.Close())
	}
	result.Delays = delays(events)
	result.Exposure, err = exposure(events, f.Static)
	for _, e := range events {
		if onbed.Wrote(e) {
			result.Writes++
		}
	}
	return result, errors.Join(err, f.Close(ctx), stage.Close())
}

// migrateAll migrates all VMs at once, and returns how many got stuck.
func migrateAll(ctx context.Context, f *onbed.Fleet, c Config, round int) (stuck int, err error) {
	for i, vm := range f.VMs {
		if err := f.CreateMigration(ctx, scenario.Migrate{Name: fmt.Sprintf("m%d-%d", round, i+1), VM: vm}); err != nil {
			return 0, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, c.Stuck)
	defer cancel()
	started := func(s scenario.State) bool {
		stuck = len(f.VMs)
		for _, m := range s.Migrations {
			if strings.HasPrefix(m.Name, fmt.Sprintf("m%d-", round)) && (m.IsFinal() || m.TargetIsCreated() || s.Is(m.Name, scenario.Charged)) {
				stuck--
			}
		}
		return stuck == 0
	}
	if err := f.Await(waiting, "all targets are there", started); err != nil {
		if waiting.Err() != nil && ctx.Err() == nil {
			return stuck, nil
		}
		return stuck, err
	}
	return 0, f.Await(ctx, "all have migrated", func(s scenario.State) bool {
		return !slices.ContainsFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return !m.IsFinal() }) &&
			len(s.Quotas) == 1 && quota.Equal(s.Quotas[0].Status.Used, f.Static) // no source pod is left
	})
}

// delays returns, for every migration that got a target pod, the time from the request to
// create the one to the answer that the other is there.
func delays(events []bed.AuditEvent) []time.Duration {
	created := map[string]time.Time{}
	var found []time.Duration
	for _, e := range events {
		switch {
		case e.Verb != "create" || e.Subresource != "" || e.Code != 201:
		case e.Resource == "virtualmachineinstancemigrations":
			created[e.Name] = e.Received
		case e.Resource == "pods":
			var pod corev1.Pod
			if json.Unmarshal(e.RequestObject, &pod) != nil {
				continue
			}
			if from, ok := created[pod.Annotations[kubevirtv1.MigrationJobNameAnnotation]]; ok {
				found = append(found, e.Answered.Sub(from))
			}
		}
	}
	slices.Sort(found)
	return found
}

// exposure returns the room that a regular pod could have taken and should not, summed up
// over time: what is enforced beyond the static limit, and not used. The VMs use all of
// the static limit, and their migrations what they are charged for.
func exposure(events []bed.AuditEvent, static corev1.ResourceList) (float64, error) {
	total, room := 0.0, 0.0
	var since time.Time
	limit := static[corev1.ResourceLimitsMemory]
	for _, e := range events {
		if e.Resource != "resourcequotas" || e.Code >= 300 || e.Verb == "delete" || len(e.ResponseObject) == 0 {
			continue
		}
		var rq corev1.ResourceQuota
		if err := json.Unmarshal(e.ResponseObject, &rq); err != nil {
			return 0, err
		}
		total += room * e.Answered.Sub(since).Seconds()
		hard, used := rq.Status.Hard[corev1.ResourceLimitsMemory], rq.Status.Used[corev1.ResourceLimitsMemory]
		room = max(0, hard.AsApproximateFloat64()-max(limit.AsApproximateFloat64(), used.AsApproximateFloat64()))
		since = e.Answered
	}
	return total, nil
}

// Table writes results as a table in Markdown, which is one to read as it is, too.
func Table(out io.Writer, results []Result) error {
	table := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| policy\t| migrations\t| VMIM to target pod, p50\t| p90\t| max\t| stuck after 60 s\t| quota writes per migration\t| exposure, GiB·s\t|")
	fmt.Fprintln(table, strings.Repeat("| ---\t", 8)+"|")
	for _, r := range results {
		delay := func(p int) string {
			if len(r.Delays) == 0 {
				return "never"
			}
			return faults.Percentile(r.Delays, p).String()
		}
		fmt.Fprintf(table, "| %s\t| %d\t| %s\t| %s\t| %s\t| %d\t| %.2f\t| %.1f\t|\n", r.Policy, r.Migrations, delay(50), delay(90), delay(100),
			r.Stuck, float64(r.Writes)/float64(r.Migrations), r.Exposure/(1<<30))
	}
	return table.Flush()
}
