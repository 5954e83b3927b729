package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
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
func up(ctx context.Context, opts options, out, log io.Writer) error {
	if err := bed.Build(ctx, opts.versions, log); err != nil {
		return err
	}
	dir := opts.dir
	var err error
	if dir == "" {
		dir, err = bed.NewFolder(upPrefix)
	} else {
		dir, err = bed.MakeFolder(dir)
	}
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	output, err := os.Create(filepath.Join(dir, bed.DriverLog))
	if err != nil {
		return err
	}
	defer output.Close()
	server := exec.Command(self, "serve", "--versions="+opts.versions.Name, "--dir="+dir,
		"--nodes="+strconv.Itoa(opts.nodes), "--step="+opts.step.String())
	server.Stdout, server.Stderr = output, output
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := server.Start(); err != nil {
		return err
	}
	if err := awaitReady(ctx, server, dir, log); err != nil {
		return err
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s PATH=\"$PATH:%s\"\n", filepath.Join(dir, bed.AdminKubeconfig), filepath.Join(dir, programs))
	fmt.Fprintf(log, "logs and data are in %s; to end it: go -C examples/testbed run . down\n", dir)
	return nil
}

// awaitReady shows what the server says until it is ready. If ctx is done it ends the
// server.
func awaitReady(ctx context.Context, server *exec.Cmd, dir string, log io.Writer) error {
	said, err := os.Open(filepath.Join(dir, bed.DriverLog))
	if err != nil {
		return err
	}
	defer said.Close()
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for {
		_, err := os.Stat(filepath.Join(dir, readyFile))
		ready := err == nil
		if _, err := io.Copy(log, said); err != nil {
			return err
		}
		if ready {
			return nil
		}
		select {
		case err := <-ended:
			_, copied := io.Copy(log, said)
			return errors.Join(fmt.Errorf("the test bed ended: %w; its logs are in %s", err, dir), copied)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), server.Process.Signal(syscall.SIGTERM), <-ended)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serve runs a bed until ctx is done.
func serve(ctx context.Context, opts options, log io.Writer) error {
	b, err := bed.Start(ctx, bed.Config{Versions: opts.versions, Dir: opts.dir, Nodes: opts.nodes, Step: opts.step, Log: log})
	if err != nil {
		return err
	}
	if err := errors.Join(
		linkKubectl(ctx, opts.versions, filepath.Join(b.Dir(), programs), log),
		os.WriteFile(filepath.Join(b.Dir(), readyFile), nil, 0o600),
	); err != nil {
		return errors.Join(err, b.Stop())
	}
	<-ctx.Done()
	return b.Stop()
}

// linkKubectl makes the folder dir, in which kubectl is.
func linkKubectl(ctx context.Context, versions bed.Versions, dir string, log io.Writer) error {
	kubectl, err := bed.Kubectl(ctx, versions, log)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Symlink(kubectl, filepath.Join(dir, filepath.Base(kubectl)))
}
