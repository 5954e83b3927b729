package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// faultOptions are the flags of the command faults.
type faultOptions struct {
	kills, races, rounds int
	seed                 uint64
	guard, only          string
}

// breakThings runs all faults, or those of one kind, on a bed of its own, and says what
// came of them.
func breakThings(ctx context.Context, args []string, out, log io.Writer) (err error) {
	var opts faultOptions
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&opts.kills, "kills", 300, "")
	flags.IntVar(&opts.races, "races", 300, "")
	flags.IntVar(&opts.rounds, "rounds", 5, "")
	flags.StringVar(&opts.only, "only", "", "")
	flags.StringVar(&opts.guard, "guard", filepath.Join("..", "controller", "guard", "policy"), "")
	flags.Uint64Var(&opts.seed, "seed", uint64(time.Now().UnixNano()), "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	todo := slices.DeleteFunc(faultsOf(opts, log), func(f fault) bool { return opts.only != "" && opts.only != f.kind })
	if len(todo) == 0 {
		return errUsage
	}
	b, err := bed.Start(ctx, bed.Config{Step: 50 * time.Millisecond, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	fmt.Fprintln(log, "seed", opts.seed)
	var failed []error
	for _, fault := range todo {
		if err := onStage(ctx, b, fault, out, log); err != nil {
			failed = append(failed, fmt.Errorf("%s (seed %d): %w", fault.name, opts.seed, err))
		}
	}
	return errors.Join(failed...)
}

// A fault is one kind of them. It says what came of it.
type fault struct {
	kind    string // as it is in the flag --only
	name    string
	library process.Program // that the stage has
	run     func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error)
}

func faultsOf(o faultOptions, log io.Writer) []fault {
	return []fault{
		{"kill", "kill -9 of two replicas", "", func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Kill(ctx, stage, o.kills, 2, 12, o.seed, log)
		}},
		{"restart", "kill -9 of the control plane", "", func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Restart(ctx, stage, o.rounds, 12, time.Second, o.seed, log)
		}},
		{"lock", "Rancher's write lock", "", func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Lock(ctx, stage, log)
		}},
		{"races", "lost races", process.Headroom, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Races(ctx, stage, o.races, 5)
		}},
		{"thief", "a thief, without a guard", process.Headroom, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Steal(ctx, stage, 12, 5*time.Second, "")
		}},
		{"thief", "the same thief, with the guard", process.Guarded, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Steal(ctx, stage, 12, 5*time.Second, o.guard)
		}},
	}
}

func onStage(ctx context.Context, b *bed.Bed, f fault, out, log io.Writer) error {
	stage, err := onbed.NewStage(ctx, b, f.library, log)
	if err != nil {
		return err
	}
	start := time.Now()
	report, err := f.run(ctx, stage)
	if err := errors.Join(err, stage.Close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, in %v: %v\n", f.name, time.Since(start).Round(time.Second), report)
	return nil
}
