package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// A KillReport is what came of [Kill].
type KillReport struct {
	Kills  int // of our process
	Drains int // of a node, that ended meanwhile
	Writes int // to the quota
}

func (r KillReport) String() string {
	return fmt.Sprintf("%d kills, %d nodes drained, %d writes to the quota, none of them below static", r.Kills, r.Drains, r.Writes)
}

// longestLife is how long a process lives at most before it is killed, from when its caches
// are filled.
const longestLife = time.Second

// Kill drains one node after the other of a fleet of n virtual machines. Meanwhile it
// starts replicas of the library, kills each of them with SIGKILL at a random moment, and
// starts it again, until it has killed so often. Then one replica is left alone, for the
// drain that has not ended yet: the last of the others may not even have raised for it. The
// stage has no library of its own.
func Kill(ctx context.Context, stage *onbed.Stage, kills, replicas, n int, seed uint64, log io.Writer) (KillReport, error) {
	f, err := stage.Fleet(ctx, "kill", n, onbed.Linger(500*time.Millisecond))
	if err != nil {
		return KillReport{}, err
	}
	var report KillReport
	enough := make(chan struct{})
	drained := make(chan error, 1)
	go func() { drained <- drainUntil(ctx, f, &report.Drains, enough) }()
	report.Kills, err = killReplicas(ctx, stage, kills, replicas, rand.New(rand.NewPCG(seed, 0)), log)
	close(enough)
	last, failed := stage.StartProgram(ctx, process.Headroom, log)
	if err := errors.Join(err, failed, <-drained); err != nil {
		return report, errors.Join(err, stop(last))
	}
	if err := errors.Join(f.AwaitRest(ctx), stop(last)); err != nil {
		return report, err
	}
	report.Writes, err = checkWrites(f)
	return report, errors.Join(err, f.Close(ctx))
}

func stop(p *process.Process) error {
	if p == nil {
		return nil
	}
	return p.Stop()
}

// drainUntil drains one node after the other until enough.
func drainUntil(ctx context.Context, f *onbed.Fleet, drains *int, enough <-chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-enough:
			return nil
		default:
		}
		if err := f.Evacuate(ctx, fmt.Sprintf("node%02d", i%3+1)); err != nil {
			return err
		}
		*drains++
	}
}

// killReplicas starts replicas and kills them, so often in all. It returns how often it did.
func killReplicas(ctx context.Context, stage *onbed.Stage, kills, replicas int, random *rand.Rand, log io.Writer) (int, error) {
	config, err := stage.Bed.User(onbed.User)
	if err != nil {
		return 0, err
	}
	type life struct {
		starts bool // it is killed while it starts
		lasts  time.Duration
	}
	lives := make(chan life, kills)
	for i := range kills {
		lives <- life{starts: i%4 == 3, lasts: time.Duration(random.Int64N(int64(longestLife)))}
	}
	close(lives)
	var killed atomic.Int64
	failed := make([]error, replicas)
	var group sync.WaitGroup
	for replica := range replicas {
		group.Go(func() {
			agent := fmt.Sprintf("%s-%d", onbed.User, replica+1)
			for life := range lives {
				p, err := process.Start(process.Headroom, config, agent, log)
				if err == nil && !life.starts {
					err = await(ctx, p)
				}
				if p != nil {
					err = errors.Join(err, wait(ctx, life.lasts), p.Kill())
				}
				if err != nil {
					failed[replica] = err
					return
				}
				killed.Add(1)
			}
		})
	}
	group.Wait()
	return int(killed.Load()), errors.Join(failed...)
}

// await waits until a process works.
func await(ctx context.Context, p *process.Process) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.Ended():
		return fmt.Errorf("a process ended by itself: %v", p.Log())
	case <-p.Ready():
		return nil
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
