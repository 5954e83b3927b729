// Controller keeps the ResourceQuotas of a cluster right while KubeVirt virtual machines
// live-migrate: the library as a program, for clusters that have neither Rancher nor
// Harvester. See README.md for how it is installed and run.
package main

import (
	"context"
	"errors"
	goflag "flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

func main() {
	o, err := parseOptions(os.Args[1:], os.Getenv)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return
	case o.version:
		fmt.Println("headroom version", version())
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "headroom:", err)
		os.Exit(2)
	}
	setLogging(o)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends it at once.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, o); err != nil {
		klog.FromContext(ctx).Error(err, "The controller ends")
		klog.Flush()
		os.Exit(1) //nolint:gocritic // nothing is deferred that matters
	}
	klog.FromContext(ctx).Info("The controller ends")
	klog.Flush()
}

// version is that of the module, as Go has recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// setLogging makes klog log as the flags say.
func setLogging(o options) {
	flags := goflag.NewFlagSet("klog", goflag.ContinueOnError)
	klog.InitFlags(flags)
	if err := flags.Set("v", strconv.Itoa(o.verbosity)); err != nil {
		klog.ErrorS(err, "The verbosity is not set")
	}
	if o.logFormat == "json" {
		level := slog.Level(-o.verbosity)
		klog.SetSlogLogger(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	}
}
