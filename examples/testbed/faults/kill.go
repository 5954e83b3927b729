package faults

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// node is the name of the i-th of three nodes, and again from the first on.
func node(i int) string { return fmt.Sprintf("node%02d", i%3+1) }

// kill drains one node after the other of a fleet. Meanwhile it starts replicas of the
// library, kills each of them with SIGKILL at a random moment, and starts it again, until it has
// killed so often. Then one replica is left alone, for the drain that has not ended yet: the
// last of the others may not even have raised for it.
func kill(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "kill", o.VMs, onbed.FleetOptions{Linger: linger})
	drains, enough := 0, make(chan struct{})
	drained := try.Go(t, func(t try.T) {
		for ; ; drains++ {
			select {
			case <-enough:
				return
			default:
				f.With(t).Evacuate(node(drains))
			}
		}
	})
	killReplicas(t, s, o)
	close(enough)
	last := s.StartProgram(t, process.Headroom, o.Log)
	drained()
	f.AwaitRest()
	require.NoError(t, last.Stop())
	writes := checkWrites(f)
	require.Positive(t, writes)
	return fmt.Sprintf("%d kills, %d nodes drained, %d writes to the quota, none of them below static", o.Kills, drains, writes)
}

// killReplicas starts two replicas and kills them, so often in all. Each lives for a second at
// most from when its caches are filled; one of four is killed while it starts.
func killReplicas(t try.T, s *onbed.Stage, o Options) {
	s.Grant(t, onbed.User, onbed.EnforceLimits)
	random := rand.New(rand.NewPCG(o.Seed, 0))
	lives := make(chan time.Duration, o.Kills)
	for range o.Kills {
		lives <- time.Duration(random.Int64N(int64(time.Second)))
	}
	close(lives)
	replica := func(agent string) (wait func()) {
		return try.Go(t, func(t try.T) {
			for lasts := range lives {
				p := s.Launch(t, process.Headroom, onbed.User, agent, o.Log)
				if lasts%4 > 0 {
					require.NoError(t, p.AwaitReady(t.Context()))
				}
				try.Sleep(t, lasts)
				require.NoError(t, p.Kill())
			}
		})
	}
	first, second := replica(onbed.User+"-1"), replica(onbed.User+"-2")
	first()
	second()
}

// restart drains a node for each component of the control plane, kills that component with
// SIGKILL at a random moment of the drain, and starts it again after a second; all that so many
// rounds.
func restart(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "restart", o.VMs, onbed.FleetOptions{Linger: linger})
	library := s.StartProgram(t, process.Headroom, o.Log)
	random := rand.New(rand.NewPCG(o.Seed, 1))
	components := s.Bed.Components()
	var killed []bed.Component
	for i := range o.Rounds * len(components) {
		component := components[i%len(components)]
		drained := try.Go(t, func(t try.T) { f.With(t).Evacuate(node(i)) })
		try.Sleep(t, time.Duration(random.Int64N(int64(2*time.Second))))
		s.Bed.Kill(t, component)
		try.Sleep(t, time.Second)
		s.Bed.Restart(t, component)
		drained()
		killed = append(killed, component)
	}
	f.AwaitRest()
	require.NoError(t, library.Stop())
	return fmt.Sprintf("killed %v, as many nodes drained, %d writes to the quota, none of them below static", killed, checkWrites(f))
}

// alone migrates virtual machines, each in a namespace of its own, while kube-controller-manager
// is down: nobody recounts, so nobody but the library lowers a limit.
func alone(t try.T, s *onbed.Stage, o Options) string {
	var fleets []*onbed.Fleet
	for range o.Rounds {
		fleets = append(fleets, s.Fleet(t, "alone", 1, onbed.FleetOptions{}))
	}
	library := s.StartProgram(t, process.Headroom, o.Log)
	s.Bed.Kill(t, bed.ControllerManager)
	back := func(t try.T) { s.Bed.Restart(t, bed.ControllerManager) }
	try.Cleanup(t, back) // also if something fails
	for _, f := range fleets {
		f.Succeeded(f.Migrate(1, "")...)
		f.Enforces(f.Static)
	}
	back(t)
	writes := 0
	for _, f := range fleets {
		f.AwaitRest()
	}
	require.NoError(t, library.Stop())
	for _, f := range fleets {
		writes += checkWrites(f)
	}
	return fmt.Sprintf("without kube-controller-manager %d migrations succeeded, the library lowered the limit after each, "+
		"%d writes to the quota, none of them below static", len(fleets), writes)
}
