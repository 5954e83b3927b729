// Command kubectl-headroom is a plugin of kubectl. It explains what status.hard of the
// ResourceQuotas of a namespace must be while its virtual machines live-migrate, and foretells
// which migrations a quota would refuse.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/resource"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in that a kubeconfig can name

	"github.com/vmquota/headroom/quota"
)

// Exit codes.
const (
	exitOK      = 0
	exitError   = 1
	exitRefused = 2 // forecast: quota would refuse a migration
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is the program.
func run(ctx context.Context, streams genericiooptions.IOStreams, args []string) int {
	command := newCommand(streams)
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	switch {
	case errors.Is(err, errRefused):
		return exitRefused
	case err != nil:
		fmt.Fprintf(streams.ErrOut, "error: %v\n", err)
		return exitError
	}
	return exitOK
}

// options are the command line.
type options struct {
	genericiooptions.IOStreams
	config *genericclioptions.ConfigFlags
	print  *genericclioptions.PrintFlags

	files         resource.FilenameOptions
	allNamespaces bool
	lease         string
	at            time.Duration // negative: the end
	budget        map[string]string
	policy        quota.Policy
	resources     []string

	parallel int
	overhead apiresource.QuantityValue
}

const long = `While a virtual machine live-migrates, its old and its new pod both count against the
ResourceQuota. For each quota %[1]s shows what the tenant was given, what is used, how much of
that is there only because of migrations, and what status.hard must be now; then each
migration, what it is charged twice, whether it gets room, and why. It writes nothing.`

const examples = `  # A namespace of the cluster
  %[1]s explain -n tenant

  # The same from objects that were read before; or from a folder, such as a must-gather
  kubectl get resourcequota,limitrange,pod,pvc,vmi,vmim -n tenant -o json | %[1]s explain -f -
  %[1]s explain -R -f must-gather/

  # A recording: one moment of it, or all of it as a picture
  %[1]s explain -f recording.jsonl --at 2s
  %[1]s explain -f recording.jsonl -o svg > timeline.svg

  # Which migrations would a drain or an upgrade have refused?
  %[1]s forecast -A --overhead 20Mi`

// newCommand returns the root command. Without a subcommand it explains.
func newCommand(streams genericiooptions.IOStreams) *cobra.Command {
	const name = "kubectl headroom"
	o := &options{IOStreams: streams, config: genericclioptions.NewConfigFlags(true), print: genericclioptions.NewPrintFlags("")}
	root := &cobra.Command{
		Use:           "kubectl-headroom",
		Short:         "Show what live migrations need of ResourceQuotas",
		Long:          fmt.Sprintf(long, name),
		Example:       fmt.Sprintf(examples, name),
		Version:       "unknown",
		Args:          cobra.NoArgs,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: name},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(c *cobra.Command, _ []string) error { return o.explain(c.Context()) },
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		root.Version = info.Main.Version
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	explain := &cobra.Command{
		Use: "explain", Short: "Explain what status.hard must be now, and why", Args: cobra.NoArgs, RunE: root.RunE,
	}
	forecast := &cobra.Command{
		Use:   "forecast",
		Short: "Foretell which migrations a quota would refuse if every VM had to migrate",
		Long: `Foretell which migrations a quota would refuse, and by how much, if every VM had to migrate
and nobody made room, as in a drain or an upgrade; and which static limits would be enough.

Exit codes: 0, none would be refused; 1, an error; 2, at least one would be refused.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.forecast(c.Context()) },
	}
	flags := root.PersistentFlags()
	flags.StringSliceVarP(&o.files.Filenames, "filename", "f", nil, "files or folders of objects in YAML or JSON, a recording (.jsonl), or - for standard input, instead of the cluster")
	flags.BoolVarP(&o.files.Recursive, "recursive", "R", false, "read the folders of -f with all that is below them")
	flags.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "all namespaces")
	o.config.AddFlags(flags)
	for _, c := range []*cobra.Command{root, explain} {
		flags := c.Flags()
		flags.DurationVar(&o.at, "at", -1, "the moment of a recording, such as 3.5s; negative: its end")
		flags.StringToStringVar(&o.budget, "budget", nil, "at most so much for migrations at the same time, per quota, such as limits.memory=8Gi,limits.cpu=4")
		flags.BoolVar(&o.policy.Strict, "strict", false, "regular usage above the static limit does not lift the limit")
		flags.StringSliceVar(&o.resources, "resource", nil, "what -o svg draws, such as limits.memory,pods (default: all)")
		flags.StringVar(&o.lease, "lease", "headroom/headroom", "namespace and name of the Lease that the controller's leader holds")
	}
	forecast.Flags().IntVar(&o.parallel, "parallel", 5, "how many VMs migrate at the same time; 5 is KubeVirt's limit by default")
	forecast.Flags().Var(&o.overhead, "overhead", "what an upgrade adds to the memory of each target pod, such as 20Mi")
	for _, c := range []*cobra.Command{root, explain, forecast} {
		o.print.AddFlags(c)
	}
	root.AddCommand(explain, forecast)
	for _, other := range []string{"context", "kubeconfig", "cluster", "server"} {
		root.MarkFlagsMutuallyExclusive("filename", other)
	}
	return root
}

func (o *options) explain(ctx context.Context) error {
	if err := o.parseBudget(); err != nil {
		return err
	}
	if *o.print.OutputFormat == "svg" {
		return o.draw()
	}
	w, err := o.read(ctx)
	if err == nil && w.source.Kind == clusterSource {
		err = w.readLease(o)
	}
	if err == nil {
		err = w.limited(o.policy.Budget)
	}
	if err != nil {
		return err
	}
	e := newExplanation(w, o)
	return o.write(w, e, e.table)
}

// write prints what was found out: as a table, or as -o says. What the user should know beside
// it goes to the error stream.
func (o *options) write(w *world, object any, table func(io.Writer)) error {
	var out bytes.Buffer
	if *o.print.OutputFormat == "" {
		table(&out)
	} else {
		printer, err := o.print.ToPrinter()
		if err != nil {
			return err
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err == nil {
			err = printer.PrintObj(&unstructured.Unstructured{Object: content}, &out)
		}
		if err != nil {
			return err
		}
	}
	for _, line := range w.asides() {
		fmt.Fprintln(o.ErrOut, line)
	}
	_, err := o.Out.Write(out.Bytes())
	return err
}

// parseBudget reads the amounts of --budget.
func (o *options) parseBudget() error {
	o.policy.Budget = corev1.ResourceList{}
	for name, value := range o.budget {
		q, err := apiresource.ParseQuantity(value)
		if err != nil || q.Sign() < 0 {
			return fmt.Errorf("--budget: %s: %q is not an amount, as 500m and 2Gi are", name, value)
		}
		o.policy.Budget[corev1.ResourceName(name)] = q
	}
	return nil
}
