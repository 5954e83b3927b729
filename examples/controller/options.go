package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
)

// environment is what the name of each flag has before it as an environment variable:
// --leader-elect is HEADROOM_LEADER_ELECT.
const environment = "HEADROOM_"

// options are what the flags say.
type options struct {
	kubeconfig string
	qps        float32
	burst      int

	namespace string // of the Lease
	identity  string

	leaderElect                               bool
	leaseName                                 string
	leaseDuration, renewDeadline, retryPeriod time.Duration

	shard     shard
	workers   int
	resync    time.Duration
	drainTime time.Duration

	healthAddress, metricsAddress, pprofAddress string

	logFormat string
	verbosity int

	policy   quota.Policy
	disabled bool
	guard    bool

	version bool // print the version, and nothing else
}

// parseOptions reads the flags in args, and what they leave out from the environment.
func parseOptions(args []string, getenv func(string) string) (options, error) {
	var o options
	flags := pflag.NewFlagSet("headroom", pflag.ContinueOnError)
	flags.SortFlags = false

	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: $KUBECONFIG, or the service account of the pod")
	flags.Float32Var(&o.qps, "kube-api-qps", 50, "requests per second to the API server")
	flags.IntVar(&o.burst, "kube-api-burst", 100, "requests to the API server in a burst")
	flags.StringVar(&o.namespace, "namespace", "", "namespace of the Lease; empty: $POD_NAMESPACE")

	flags.BoolVar(&o.leaderElect, "leader-elect", true, "let one replica work at a time")
	flags.StringVar(&o.leaseName, "leader-elect-resource-name", "headroom", "name of the Lease; a shard adds its number")
	flags.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", 15*time.Second, "after which time without a renewal another replica takes over")
	flags.DurationVar(&o.renewDeadline, "leader-elect-renew-deadline", 10*time.Second, "for how long the leader tries to renew before it gives up")
	flags.DurationVar(&o.retryPeriod, "leader-elect-retry-period", 2*time.Second, "how often the Lease is renewed, or tried for")

	flags.Uint32Var(&o.shard.count, "shards", 1, "into how many parts the namespaces are divided")
	flags.Uint32Var(&o.shard.index, "shard", 0, "which part this process works on, from 0")
	flags.IntVar(&o.workers, "concurrent-namespaces", 4, "how many namespaces are worked on at the same time")
	flags.DurationVar(&o.resync, "resync-period", 10*time.Minute, "how often all namespaces are looked at without a cause")
	flags.DurationVar(&o.drainTime, "shutdown-grace-period", 20*time.Second, "for how long work in progress may go on after SIGTERM")

	flags.StringVar(&o.healthAddress, "health-probe-bind-address", ":8081", "where /healthz and /readyz are; empty: nowhere")
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "where /metrics is; empty: nowhere")
	flags.StringVar(&o.pprofAddress, "pprof-bind-address", "", "where /debug/pprof is; empty: nowhere")

	flags.StringVar(&o.logFormat, "logging-format", "text", "text or json")
	flags.IntVarP(&o.verbosity, "v", "v", 2, "how much is logged; from 2 on, each write of a quota")

	budget := flags.String("budget", "", "cap on the surge that is granted in each namespace, such as limits.memory=64Gi,limits.cpu=32; empty: none")
	flags.BoolVar(&o.policy.Strict, "strict", false, "usage above the static limits does not lift the enforced ones")
	flags.BoolVar(&o.guard, "guard", false, "announce offers for the admission policy of guard")
	flags.BoolVar(&o.disabled, "disable-raises", false, "kill switch: write no quota any more; kube-controller-manager ends what is raised")

	version := flags.Bool("version", false, "print the version and exit")

	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if *version {
		return options{version: true}, nil
	}
	if err := fromEnvironment(flags, getenv); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	var errs []error
	o.policy.Budget = amounts("budget", *budget, &errs)
	if o.namespace == "" {
		o.namespace = getenv("POD_NAMESPACE")
	}
	o.identity = identity(getenv)
	return o, errors.Join(append(errs, o.check())...)
}

// fromEnvironment sets the flags that were not given from their variables, but for --version.
func fromEnvironment(flags *pflag.FlagSet, getenv func(string) string) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := environment + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := getenv(name)
		if value == "" || f.Changed || f.Name == "version" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("$%s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// check reports what cannot be.
func (o *options) check() error {
	var errs []error
	require := func(holds bool, format string, args ...any) {
		if !holds {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	require(o.namespace != "", "--namespace is not set, and neither is $POD_NAMESPACE")
	require(o.shard.count > 0, "--shards is 0")
	require(o.shard.index < o.shard.count, "--shard is %d, of --shards=%d the last is %d", o.shard.index, o.shard.count, int64(o.shard.count)-1)
	require(o.workers > 0, "--concurrent-namespaces is %d", o.workers)
	require(o.resync > 0, "--resync-period is %v", o.resync)
	require(o.drainTime > 0, "--shutdown-grace-period is %v", o.drainTime)
	require(o.logFormat == "text" || o.logFormat == "json", "--logging-format is %q, not text or json", o.logFormat)
	require(!o.leaderElect || o.leaseDuration > o.renewDeadline && o.renewDeadline > o.retryPeriod && o.retryPeriod > 0,
		"leader election needs lease duration > renew deadline > retry period > 0, not %v, %v, %v", o.leaseDuration, o.renewDeadline, o.retryPeriod)
	return errors.Join(errs...)
}

// amounts reads a list such as limits.memory=64Gi,limits.cpu=32.
func amounts(flag, value string, errs *[]error) corev1.ResourceList {
	if value == "" {
		return nil
	}
	list := corev1.ResourceList{}
	for _, part := range strings.Split(value, ",") {
		name, amount, _ := strings.Cut(strings.TrimSpace(part), "=")
		q, err := resource.ParseQuantity(amount)
		if name == "" || err != nil || q.Sign() < 0 {
			*errs = append(*errs, fmt.Errorf("--%s: %q is not like limits.memory=64Gi", flag, part))
			continue
		}
		list[corev1.ResourceName(name)] = q
	}
	return list
}

// identity is the name of the pod, or of the host where there is none, with the process:
// two on one host are not the same.
func identity(getenv func(string) string) string {
	if name := getenv("POD_NAME"); name != "" {
		return name
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s_%d", host, os.Getpid())
}
