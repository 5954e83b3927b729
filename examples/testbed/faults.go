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
	kills, races, rounds, vms int
	seed                      uint64
	guard, only               string
}

// breakThings runs all faults, or those of one kind, and says what came of them.
func breakThings(ctx context.Context, args []string, out, log io.Writer) error {
	var opts faultOptions
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&opts.kills, "kills", 300, "")
	flags.IntVar(&opts.races, "races", 300, "")
	flags.IntVar(&opts.vms, "vms", 12, "")
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
	fmt.Fprintln(log, "seed", opts.seed)
	var failed []error
	for _, quotaSync := range []time.Duration{0, shortSync} {
		of := slices.DeleteFunc(slices.Clone(todo), func(f fault) bool { return f.quotaSync != quotaSync })
		if err := onBed(ctx, quotaSync, of, out, log); err != nil {
			failed = append(failed, fmt.Errorf("seed %d: %w", opts.seed, err))
		}
	}
	return errors.Join(failed...)
}

// shortSync is how often quotas are recounted in a bed where that must not take minutes.
const shortSync = 10 * time.Second

// onBed runs faults on a bed of their own.
func onBed(ctx context.Context, quotaSync time.Duration, todo []fault, out, log io.Writer) (err error) {
	if len(todo) == 0 {
		return nil
	}
	b, err := bed.Start(ctx, bed.Config{Step: 50 * time.Millisecond, QuotaSync: quotaSync, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	var failed []error
	for _, fault := range todo {
		if err := onStage(ctx, b, fault, out, log); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", fault.name, err))
		}
	}
	return errors.Join(failed...)
}

// A fault is one kind of them. It says what came of it.
type fault struct {
	kind      string // as it is in the flag --only
	name      string
	library   process.Program // that the stage has
	quotaSync time.Duration   // of the bed
	run       func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error)
}

func faultsOf(o faultOptions, log io.Writer) []fault {
	return []fault{
		{"kill", "kill -9 of two replicas", "", 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Kill(ctx, stage, o.kills, 2, 12, o.seed, log)
		}},
		{"restart", "kill -9 of the control plane", "", 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Restart(ctx, stage, o.rounds, 12, time.Second, o.seed, log)
		}},
		{"lock", "Rancher's write lock", "", 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Lock(ctx, stage, log)
		}},
		{"adversary", "an adversary that resets the limit", "", 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Adversary(ctx, stage, 12, log)
		}},
		{"alone", "kube-controller-manager is down", "", 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Alone(ctx, stage, o.rounds, log)
		}},
		{"gone", "the library is killed and never comes back", "", shortSync, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Gone(ctx, stage, log)
		}},
		{"races", "lost races", process.Headroom, 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Races(ctx, stage, o.races, 5)
		}},
		{"thief", "a thief, without a guard", process.Headroom, 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Steal(ctx, stage, 12, 5*time.Second, "")
		}},
		{"mint", "thieves, without a guard", process.Headroom, 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Mint(ctx, stage, 40*time.Second)
		}},
		{"guard", "the same thief, with the guard", process.Guarded, 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Steal(ctx, stage, 12, 5*time.Second, o.guard)
		}},
		{"twins", "a tenant and its twin, with the guard", process.Guarded, 0, func(ctx context.Context, stage *onbed.Stage) (fmt.Stringer, error) {
			return faults.Twins(ctx, stage, o.vms, o.rounds, o.seed, o.guard)
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
