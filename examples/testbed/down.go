package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// down ends beds: the one in a folder, or those that up started and those that nobody
// drives any more.
func down(opts options, out io.Writer) error {
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
func status(out io.Writer) error {
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
