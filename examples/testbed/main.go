// Command testbed runs a real Kubernetes control plane with a real KubeVirt controller
// and simulated nodes, with no container runtime.
// Without a command it prints those that it has.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/measure"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
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

// upPrefix is how the names of the folders begin that up makes.
const upPrefix = "up-"

// What is in a bed's folder when the bed is ready.
const (
	readyFile = "ready"
	programs  = "bin" // the folder of kubectl
)

// up builds here, where somebody sees the progress, and starts a process that serves
// the bed and stays.
func up(ctx context.Context, args []string, out, log io.Writer) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	if err := build(ctx, args, out, log); err != nil {
		return err
	}
	var dir string
	if opts.dir == "" {
		dir, err = bed.NewFolder(upPrefix)
	} else {
		dir, err = bed.MakeFolder(opts.dir)
	}
	if err != nil {
		return err
	}
	output, err := os.OpenFile(filepath.Join(dir, bed.DriverLog), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, append(append([]string{"serve"}, args...), "--dir="+dir)...) // the last of two counts
	server.Stdout, server.Stderr = output, output
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := server.Start(); err != nil {
		return err
	}
	ready := awaitReady(ctx, server, dir)
	said, err := os.ReadFile(filepath.Join(dir, bed.DriverLog))
	if err := errors.Join(ready, err); err != nil {
		return fmt.Errorf("%w; its logs are in %s\n%s", err, dir, said)
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s PATH=\"$PATH:%s\"\n", filepath.Join(dir, bed.AdminKubeconfig), filepath.Join(dir, programs))
	fmt.Fprintf(log, "%slogs and data are in %s; to end it: go -C examples/testbed run . down\n", said, dir)
	return nil
}

// build builds what is missing.
func build(ctx context.Context, args []string, _, log io.Writer) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	return attempt(ctx, log, func(t try.T) { bed.Build(t, opts.versions, log) })
}

// awaitReady waits until the server is ready. If ctx is done it ends the server.
func awaitReady(ctx context.Context, server *exec.Cmd, dir string) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for {
		if _, err := os.Stat(filepath.Join(dir, readyFile)); err == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the test bed ended: %w", err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), server.Process.Signal(syscall.SIGTERM), <-ended)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serve runs a bed until ctx is done.
func serve(ctx context.Context, args []string, _, log io.Writer) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	return attempt(ctx, log, func(t try.T) {
		b := bed.Start(t, bed.Config{Versions: opts.versions, Dir: opts.dir, Nodes: opts.nodes, Step: opts.step, Log: log})
		kubectl := bed.Kubectl(t, opts.versions, log)
		dir := filepath.Join(b.Dir(), programs)
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Symlink(kubectl, filepath.Join(dir, filepath.Base(kubectl))))
		require.NoError(t, os.WriteFile(filepath.Join(b.Dir(), readyFile), nil, 0o600))
		<-ctx.Done()
	})
}

// down ends beds: the one in a folder, or those that up started and those that nobody
// drives any more.
func down(_ context.Context, args []string, out, _ io.Writer) error {
	opts, err := parseOptions(args)
	if err != nil {
		return err
	}
	dirs := []string{opts.dir}
	if opts.dir == "" {
		all, err := bed.Folders()
		if err != nil {
			return err
		}
		dirs = nil
		for _, dir := range all {
			if _, running, err := bed.Running(dir); err == nil && (!running || strings.HasPrefix(filepath.Base(dir), upPrefix)) {
				dirs = append(dirs, dir)
			}
		}
		if len(dirs) == 0 {
			fmt.Fprintln(out, "no test bed that up started")
		}
	}
	var failed []error
	for _, dir := range dirs {
		if err := bed.Down(dir); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(out, "ended and removed", dir)
	}
	return errors.Join(failed...)
}

// status lists beds.
func status(_ context.Context, args []string, out, _ io.Writer) error {
	if len(args) > 0 {
		return errUsage
	}
	dirs, err := bed.Folders()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, running, err := bed.Running(dir)
		switch {
		case err != nil:
			fmt.Fprintf(out, "%s  not started: %v\n", dir, err)
		case running:
			fmt.Fprintf(out, "%s  driven by process %d\n", dir, pid)
		default:
			fmt.Fprintf(out, "%s  ended\n", dir)
		}
	}
	return nil
}

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
