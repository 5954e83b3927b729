// Command kubectl-headroom is a plugin of kubectl. It explains what status.hard of the
// ResourceQuotas of a namespace must be while its virtual machines live-migrate, and foretells
// which migrations a quota would refuse.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in that a kubeconfig can name
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
