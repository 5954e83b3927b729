// Command explain shows what the quota of a namespace must be while its virtual
// machines live-migrate, and why: from a file, a recording or a cluster. Built as
// kubectl-headroom it is a kubectl plugin.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
)

// Exit codes.
const (
	exitOK    = 0
	exitInput = 1 // bad input, or no answer from the cluster
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	files         []string
	at            *time.Duration // nil: the end
	output        string
	kubeconfig    string
	context       string
	namespace     string
	allNamespaces bool
	policy        quota.Policy
	resources     []corev1.ResourceName
}

// run is the program; args[0] is its name. All output is made before any of it is
// written.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	opts, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage(args[0]))
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n%s -h shows how it is used\n", programName(args[0]), err, programName(args[0]))
		return exitUsage
	}
	progress := newProgress(stderr)
	var out bytes.Buffer
	notes, err := explain(ctx, opts, stdin, &out, progress)
	progress.clear()
	if err == nil {
		_, err = stdout.Write(out.Bytes())
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", programName(args[0]), err)
		return exitInput
	}
	for _, note := range notes {
		fmt.Fprintf(stderr, "note: %s\n", note)
	}
	return exitOK
}

// explain writes what opts ask for to out and returns what else the user should
// know.
func explain(ctx context.Context, opts options, stdin io.Reader, out io.Writer, p *progress) ([]string, error) {
	if len(opts.files) == 0 {
		s, err := readCluster(ctx, opts, p)
		if err != nil {
			return nil, err
		}
		return nil, newReport(s, opts.policy).write(out, opts.output)
	}
	in, err := readInput(opts.files, stdin, opts.namespace, p)
	if err != nil {
		return nil, err
	}
	if opts.output == "svg" {
		t, err := newTimeline(in, opts, p)
		if err != nil {
			return nil, err
		}
		return in.notes(), t.draw(out)
	}
	s, err := in.scene(opts)
	if err != nil {
		return nil, err
	}
	return in.notes(), newReport(s, opts.policy).write(out, opts.output)
}

func parse(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, name := range []string{"f", "filename"} {
		flags.Func(name, "", func(s string) error { opts.files = append(opts.files, s); return nil })
	}
	for _, name := range []string{"o", "output"} {
		flags.StringVar(&opts.output, name, "table", "")
	}
	for _, name := range []string{"n", "namespace"} {
		flags.StringVar(&opts.namespace, name, "", "")
	}
	for _, name := range []string{"A", "all-namespaces"} {
		flags.BoolVar(&opts.allNamespaces, name, false, "")
	}
	flags.Func("at", "", func(s string) (err error) { opts.at, err = parseMoment(s); return err })
	flags.StringVar(&opts.kubeconfig, "kubeconfig", "", "")
	flags.StringVar(&opts.context, "context", "", "")
	flags.Func("budget", "", func(s string) error { return addBudget(&opts.policy, s) })
	flags.BoolVar(&opts.policy.Strict, "strict", false, "")
	flags.Func("resource", "", func(s string) error {
		for _, name := range strings.Split(s, ",") {
			opts.resources = append(opts.resources, corev1.ResourceName(name))
		}
		return nil
	})
	rest := args[1:]
	if len(rest) > 0 && rest[0] == "explain" {
		rest = rest[1:]
	}
	if err := flags.Parse(rest); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return opts, opts.check()
}

// check refuses options that contradict each other.
func (o options) check() error {
	files := len(o.files) > 0
	svg := o.output == "svg"
	switch {
	case !slices.Contains([]string{"table", "json", "yaml", "svg"}, o.output):
		return fmt.Errorf("unknown output format %q: it is table, json, yaml or svg", o.output)
	case o.namespace != "" && o.allNamespaces:
		return errors.New("-n names one namespace and -A asks for all")
	case files && (o.kubeconfig != "" || o.context != ""):
		return errors.New("-f reads files, --kubeconfig and --context a cluster: use one of them")
	case svg && !files:
		return errors.New("-o svg draws a recording: name one with -f")
	case svg && o.at != nil:
		return errors.New("-o svg draws the whole recording: leave out --at")
	case o.at != nil && !files:
		return errors.New("--at is a moment of a recording: name one with -f")
	case !svg && o.resources != nil:
		return errors.New("--resource chooses what -o svg draws")
	}
	return nil
}

// parseMoment reads 3.5s, 1m30s, or 3.5, which means seconds.
func parseMoment(s string) (*time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		s += "s"
	}
	at, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return nil, errors.New("not a time such as 3.5s")
	case at < 0:
		return nil, errors.New("before the recording begins")
	}
	return &at, nil
}

// addBudget reads limits.memory=8Gi,limits.cpu=4 into p.
func addBudget(p *quota.Policy, s string) error {
	for _, entry := range strings.Split(s, ",") {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return fmt.Errorf("%q is not of the form limits.memory=8Gi", entry)
		}
		q, err := resource.ParseQuantity(value)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %q is not a quantity, as 500m and 2Gi are", name, value)
		case q.Sign() < 0:
			return fmt.Errorf("%s: %q is negative", name, value)
		}
		if p.Budget == nil {
			p.Budget = corev1.ResourceList{}
		}
		p.Budget[corev1.ResourceName(name)] = q
	}
	return nil
}

// programName is how the user called it.
func programName(arg string) string {
	name := strings.TrimSuffix(filepath.Base(arg), ".exe")
	if plugin, ok := strings.CutPrefix(name, "kubectl-"); ok {
		return "kubectl " + plugin
	}
	return name
}
