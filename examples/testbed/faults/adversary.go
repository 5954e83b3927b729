package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/quota"
)

// An AdversaryReport is what came of [Adversary].
type AdversaryReport struct {
	Drains int // of a node
	Resets int // of status.hard, by the adversary
	Writes int // to the quota, by the library
}

func (r AdversaryReport) String() string {
	return fmt.Sprintf("%d nodes drained while status.hard was set back %d times, %d writes to the quota, none of them below static", r.Drains, r.Resets, r.Writes)
}

// resetEvery is how often the adversary reads the quota.
const resetEvery = 10 * time.Millisecond

// Adversary drains three nodes of a fleet of n virtual machines, one after the other, while
// somebody sets status.hard back to spec.hard every 10 ms. The stage has no library of its
// own.
func Adversary(ctx context.Context, stage *onbed.Stage, n int, log io.Writer) (AdversaryReport, error) {
	f, err := stage.Fleet(ctx, "adversary", n, onbed.Linger(500*time.Millisecond))
	if err != nil {
		return AdversaryReport{}, err
	}
	library, err := stage.StartProgram(ctx, process.Headroom, log)
	if err != nil {
		return AdversaryReport{}, err
	}
	var report AdversaryReport
	resetting, stop := context.WithCancel(ctx)
	reset := make(chan error, 1)
	go func() { reset <- resetLimits(resetting, stage, f, &report.Resets) }()
	for i := 0; i < 3 && err == nil; i++ {
		if err = f.Evacuate(ctx, fmt.Sprintf("node%02d", i+1)); err == nil {
			report.Drains++
		}
	}
	stop()
	if err := errors.Join(err, <-reset); err != nil {
		return report, errors.Join(err, library.Stop())
	}
	if err := errors.Join(f.AwaitRest(ctx), library.Stop()); err != nil {
		return report, err
	}
	report.Writes, err = checkWrites(f)
	return report, errors.Join(err, f.Close(ctx))
}

// resetLimits sets status.hard back to spec.hard whenever it is not that, until ctx is done.
func resetLimits(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, resets *int) error {
	quotas := stage.Client.CoreV1().ResourceQuotas(f.Namespace())
	for wait(ctx, resetEvery) == nil {
		rq, err := quotas.Get(ctx, onbed.FleetQuota, metav1.GetOptions{})
		if err == nil && !quota.Equal(rq.Status.Hard, rq.Spec.Hard) {
			rq.Status.Hard = rq.Spec.Hard.DeepCopy()
			_, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			if err == nil {
				*resets++
			}
		}
		if err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
			return err
		}
	}
	return nil
}
