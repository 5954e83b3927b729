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
	config := measure.Config{Linger: 2 * time.Second, Stuck: time.Minute, Log: log}
	flags := flag.NewFlagSet("measure", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&config.VMs, "vms", 12, "")
	flags.IntVar(&config.Rounds, "rounds", 5, "")
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
	fmt.Fprintf(out, "%d VMs on a full quota migrate at once, up to %d times; a source pod ends %v after its migration.\n\n", config.VMs, config.Rounds, config.Linger)
	return measure.Table(out, results)
}
