// Command testbed runs a real Kubernetes control plane with a real KubeVirt controller
// and simulated nodes, with no container runtime.
// Without a command it prints those that it has.
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

// commands are what can be asked for. Serve is what up starts.
var commands = map[string]func(ctx context.Context, args []string, out, log io.Writer) error{
	"up": up, "serve": serve, "build": build, "status": status, "down": down,
	"measure": measurePolicies, "scale": measureScale, "faults": breakThings,
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errUsage
	}
	return commands[args[0]](ctx, args[1:], out, log)
}

// options are the flags of the commands about beds.
type options struct {
	versions bed.Versions
	dir      string
	nodes    int
	step     time.Duration
}

func parseOptions(args []string) (o options, err error) {
	flags := newFlags("testbed")
	versions := flags.String("versions", "", "")
	flags.StringVar(&o.dir, "dir", "", "")
	flags.IntVar(&o.nodes, "nodes", 3, "")
	flags.DurationVar(&o.step, "step", 100*time.Millisecond, "")
	if err := parse(flags, args); err != nil {
		return o, err
	}
	o.versions, err = bed.ChooseVersions(*versions)
	return o, err
}
