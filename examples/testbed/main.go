// Command testbed runs a real Kubernetes control plane with a real KubeVirt controller
// and simulated nodes, with no container runtime.
//
//	go -C examples/testbed run . up         builds what is missing, starts a bed, prints how to reach it
//	go -C examples/testbed run . status     lists the beds that there are
//	go -C examples/testbed run . down       ends the beds that up started
//	go -C examples/testbed run . measure    compares the library with other policies
//	go -C examples/testbed run . scale      prints what the library costs with 5,000 virtual machines
//	go -C examples/testbed run . faults     breaks things while virtual machines migrate
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
)

const usage = `usage:
  testbed up [--versions newest|oldest] [--dir DIR] [--nodes N] [--step DURATION]
        builds what is missing, starts a test bed, prints how to reach it
  testbed build [--versions newest|oldest]
        builds what is missing
  testbed status
        lists the test beds that there are
  testbed down [--dir DIR]
        ends the test beds that up started, or the one in DIR, and removes their folders
  testbed measure [--vms N] [--rounds N] [--turn N] [--stuck DURATION] [--slow DURATION]
        compares the library with other policies, prints a table
  testbed scale [--vms N] [--namespaces N]
        fills a bed with virtual machines, prints what the library costs there
  testbed faults [--only kill|restart|lock|adversary|alone|gone|races|thief|guard|mint|twins] [--kills N] [--rounds N] [--races N] [--vms N] [--guard DIR] [--seed N]
        breaks things while VMs migrate, says what came of it
`

func main() {
	process.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong command line")

// options are the flags of all commands.
type options struct {
	versions bed.Versions
	dir      string
	nodes    int
	step     time.Duration
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	var opts options
	flags := newFlags("testbed")
	command := args[0]
	versions := ""
	switch command {
	case "up", "serve":
		flags.StringVar(&versions, "versions", "", "")
		flags.StringVar(&opts.dir, "dir", "", "")
		flags.IntVar(&opts.nodes, "nodes", 3, "")
		flags.DurationVar(&opts.step, "step", 100*time.Millisecond, "")
	case "down":
		flags.StringVar(&opts.dir, "dir", "", "")
	case "measure":
		return measurePolicies(ctx, args[1:], out, log)
	case "scale":
		return measureScale(ctx, args[1:], out, log)
	case "faults":
		return breakThings(ctx, args[1:], out, log)
	case "build":
		flags.StringVar(&versions, "versions", "", "")
	case "status":
	default:
		return errUsage
	}
	if err := parse(flags, args[1:]); err != nil {
		return err
	}
	var err error
	if opts.versions, err = bed.ChooseVersions(versions); err != nil {
		return err
	}
	switch command {
	case "up":
		return up(ctx, opts, out, log)
	case "serve":
		return serve(ctx, opts, log)
	case "build":
		return build(ctx, opts, log)
	case "status":
		return status(out)
	default:
		return down(opts, out)
	}
}
