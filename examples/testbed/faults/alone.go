package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// An AloneReport is what came of [Alone].
type AloneReport struct {
	Migrations int // that got room, and whose room the library took back
	Writes     int // to the quota
}

func (r AloneReport) String() string {
	return fmt.Sprintf("without kube-controller-manager %d migrations succeeded, the library lowered the limit after each, %d writes to the quota, none of them below static", r.Migrations, r.Writes)
}

// Alone migrates n virtual machines, each in a namespace of its own, while
// kube-controller-manager is down: nobody recounts, so nobody but the library lowers a
// limit. The stage has no library of its own.
func Alone(ctx context.Context, stage *onbed.Stage, n int, log io.Writer) (report AloneReport, err error) {
	var fleets []*onbed.Fleet
	for range n {
		f, err := stage.Fleet(ctx, "alone", 1)
		if err != nil {
			return report, err
		}
		fleets = append(fleets, f)
	}
	library, err := stage.StartProgram(ctx, process.Headroom, log)
	if err != nil {
		return report, err
	}
	if err := stage.Bed.Kill(bed.ControllerManager); err != nil {
		return report, errors.Join(err, library.Stop())
	}
	for _, f := range fleets {
		if err = f.CreateMigration(ctx, scenario.Migrate{Name: "m1", VM: f.VMs[0]}); err != nil {
			break
		}
		if err = f.Await(ctx, "m1 has succeeded and the limit is static, with nobody recounting", func(s scenario.State) bool {
			return s.Is("m1", string(kubevirtv1.MigrationSucceeded)) && len(s.Quotas) == 1 && !s.Raised(onbed.FleetQuota)
		}); err != nil {
			break
		}
		report.Migrations++
	}
	err = errors.Join(err, stage.Bed.Restart(ctx, bed.ControllerManager))
	for _, f := range fleets {
		if err != nil {
			break
		}
		err = f.AwaitRest(ctx)
	}
	if err := errors.Join(err, library.Stop()); err != nil {
		return report, err
	}
	for _, f := range fleets {
		writes, err := checkWrites(f)
		if err := errors.Join(err, f.Close(ctx)); err != nil {
			return report, err
		}
		report.Writes += writes
	}
	return report, nil
}

// A GoneReport is what came of [Gone].
type GoneReport struct {
	Charged, Offered time.Duration // from the kill to status.hard being spec.hard
	Traces           []string      // annotations that were left; none without the guard
}

func (r GoneReport) String() string {
	return fmt.Sprintf("status.hard was spec.hard %v after the library was killed with a target pod charged, %v after it was killed with room offered; annotations left: %v",
		r.Charged.Round(time.Millisecond), r.Offered.Round(time.Millisecond), r.Traces)
}

// Gone kills the library with SIGKILL in the middle of a raise and never starts it again:
// once while a target pod is charged, once while a target pod has not come. Then
// kube-controller-manager is to make status.hard spec.hard again, within the period of
// bed.Config.QuotaSync. The stage has no library of its own.
func Gone(ctx context.Context, stage *onbed.Stage, log io.Writer) (GoneReport, error) {
	var report GoneReport
	if err := install(ctx, stage, gatePolicy); err != nil {
		return report, err
	}
	for _, test := range []struct {
		gated bool
		took  *time.Duration
	}{{false, &report.Charged}, {true, &report.Offered}} {
		f, err := stage.Fleet(ctx, "gone", 1)
		if err != nil {
			return report, err
		}
		if err := createGate(ctx, stage, f, test.gated); err != nil {
			return report, err
		}
		if *test.took, err = leave(ctx, stage, f, test.gated, log); err != nil {
			return report, err
		}
		s, err := f.State(ctx)
		if err != nil {
			return report, err
		}
		report.Traces = append(report.Traces, s.Traces(onbed.FleetQuota)...)
		if err := f.Close(ctx); err != nil {
			return report, err
		}
	}
	return report, nil
}

// leave kills the library as soon as a migration has room, and returns how long the room
// stays. If gated, the target pod does not come.
func leave(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, gated bool, log io.Writer) (time.Duration, error) {
	library, err := stage.StartProgram(ctx, process.Headroom, log)
	if err != nil {
		return 0, err
	}
	raised := f.CreateMigration(ctx, scenario.Migrate{Name: "m1", VM: f.VMs[0], Goes: scenario.Hang})
	if raised == nil {
		raised = f.Await(ctx, "the limit is raised", func(s scenario.State) bool {
			return s.Raised(onbed.FleetQuota) && (gated || s.Is("m1", string(kubevirtv1.MigrationRunning)))
		})
	}
	if err := errors.Join(raised, library.Kill()); err != nil {
		return 0, err
	}
	killed := time.Now()
	if s, err := f.State(ctx); err != nil || !s.Raised(onbed.FleetQuota) {
		return 0, errors.Join(err, errors.New("the limit is lowered already when the library is killed"))
	}
	err = f.Await(ctx, "status.hard is spec.hard although the library is gone", func(s scenario.State) bool { return !s.Raised(onbed.FleetQuota) })
	return time.Since(killed), err
}
