package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/measure"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// breakThings runs all faults, or those of one kind, and says what came of them. Those that
// want kube-controller-manager to recount as often share a bed.
func breakThings(ctx context.Context, args []string, out, log io.Writer) error {
	o, only := faults.Options{Abreast: 5, Hold: 5 * time.Second, Log: log}, ""
	flags := newFlags("faults")
	flags.IntVar(&o.Kills, "kills", 300, "")
	flags.IntVar(&o.Races, "races", 300, "")
	flags.IntVar(&o.VMs, "vms", 12, "")
	flags.IntVar(&o.Rounds, "rounds", 5, "")
	flags.StringVar(&only, "only", "", "")
	flags.StringVar(&o.Guard, "guard", filepath.Join("..", "controller", "guard", "policy"), "")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "")
	if err := parse(flags, args); err != nil {
		return err
	}
	todo := map[time.Duration][]faults.Fault{} // by what the bed has to be like
	for _, f := range faults.All {
		if only == "" || only == f.Kind {
			todo[f.QuotaSync] = append(todo[f.QuotaSync], f)
		}
	}
	if len(todo) == 0 {
		return errUsage
	}
	fmt.Fprintln(log, "seed", o.Seed)
	var failed []error
	for _, quotaSync := range slices.Sorted(maps.Keys(todo)) {
		failed = append(failed, attempt(ctx, log, func(t try.T) {
			b := bed.Start(t, bed.Config{Step: 50 * time.Millisecond, QuotaSync: quotaSync, Log: log})
			for _, f := range todo[quotaSync] {
				start, report := time.Now(), ""
				err := attempt(ctx, log, func(t try.T) { report = f.Run(t, onbed.NewStage(t, b, f.Library, log), o) })
				if err != nil {
					t.Errorf("seed %d: %s: %w", o.Seed, f.Name, err)
					continue
				}
				fmt.Fprintf(out, "%s, in %v: %v\n", f.Name, time.Since(start).Round(time.Second), report)
			}
		}))
	}
	return errors.Join(failed...)
}

// measurePolicies compares policies on a bed of its own, and prints a table.
func measurePolicies(ctx context.Context, args []string, out, log io.Writer) error {
	config := measure.Config{Linger: 2 * time.Second, Log: log}
	flags := newFlags("measure")
	flags.IntVar(&config.VMs, "vms", 12, "")
	flags.IntVar(&config.Rounds, "rounds", 5, "")
	flags.IntVar(&config.Turn, "turn", 5, "")
	flags.DurationVar(&config.Slow, "slow", 0, "")
	flags.DurationVar(&config.Stuck, "stuck", time.Minute, "")
	if err := parse(flags, args); err != nil {
		return err
	}
	return attempt(ctx, log, func(t try.T) {
		results := measure.Run(t, bed.Start(t, bed.Config{Log: log}), config)
		fmt.Fprintf(out, "A source pod ends %v after its migration. A migration without a target pod after %v is stuck.\n\n", config.Linger, config.Stuck)
		require.NoError(t, measure.Table(out, results))
	})
}

// attempt calls do, whose messages go to log.
func attempt(ctx context.Context, log io.Writer, do func(try.T)) error {
	return try.Run(ctx, func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }, do)
}

func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	return nil
}
