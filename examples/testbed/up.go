package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

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
