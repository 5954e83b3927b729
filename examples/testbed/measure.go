package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/measure"
)

// measurePolicies compares policies on a bed of its own, and prints a table.
func measurePolicies(ctx context.Context, args []string, out, log io.Writer) (err error) {
	config := measure.Config{Linger: 2 * time.Second, Log: log}
	flags := flag.NewFlagSet("measure", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&config.VMs, "vms", 12, "")
	flags.IntVar(&config.Rounds, "rounds", 5, "")
	flags.IntVar(&config.Turn, "turn", 5, "")
	flags.DurationVar(&config.Slow, "slow", 0, "")
	flags.DurationVar(&config.Stuck, "stuck", time.Minute, "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	b, err := bed.Start(ctx, bed.Config{Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	results, err := measure.Run(ctx, b, config)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "A source pod ends %v after its migration. A migration without a target pod after %v is stuck.\n\n", config.Linger, config.Stuck)
	return measure.Table(out, results)
}
