package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// A RestartReport is what came of [Restart].
type RestartReport struct {
	Killed []bed.Component // while a node was drained
	Writes int             // to the quota
}

func (r RestartReport) String() string {
	return fmt.Sprintf("killed %v, as many nodes drained, %d writes to the quota, none of them below static", r.Killed, r.Writes)
}

// Restart drains a node of a fleet of n virtual machines for each component of the control
// plane, kills that component with SIGKILL at a random moment of the drain, and starts it
// again after down; all that so many rounds. The stage has no library of its own.
func Restart(ctx context.Context, stage *onbed.Stage, rounds, n int, down time.Duration, seed uint64, log io.Writer) (RestartReport, error) {
	f, err := stage.Fleet(ctx, "restart", n, onbed.Linger(500*time.Millisecond))
	if err != nil {
		return RestartReport{}, err
	}
	library, err := stage.StartProgram(ctx, process.Headroom, log)
	if err != nil {
		return RestartReport{}, err
	}
	random := rand.New(rand.NewPCG(seed, 1))
	var report RestartReport
	components := stage.Bed.Components()
	for i := range rounds * len(components) {
		component := components[i%len(components)]
		drained := make(chan error, 1)
		go func() { drained <- f.Evacuate(ctx, fmt.Sprintf("node%02d", i%3+1)) }()
		err := wait(ctx, time.Duration(random.Int64N(int64(2*time.Second))))
		if err == nil {
			err = bounce(ctx, stage.Bed, component, down)
		}
		if err := errors.Join(err, <-drained); err != nil {
			return report, errors.Join(fmt.Errorf("%s killed: %w", component, err), library.Stop())
		}
		report.Killed = append(report.Killed, component)
	}
	if err := errors.Join(f.AwaitRest(ctx), library.Stop()); err != nil {
		return report, err
	}
	report.Writes, err = checkWrites(f)
	return report, errors.Join(err, f.Close(ctx))
}

func bounce(ctx context.Context, b *bed.Bed, component bed.Component, down time.Duration) error {
	if err := b.Kill(component); err != nil {
		return err
	}
	if err := wait(ctx, down); err != nil {
		return err
	}
	return b.Restart(ctx, component)
}
