// Package faults breaks things while virtual machines migrate on full quotas of a real
// control plane, and looks whether everything comes right: no limit below static is ever
// written, every migration gets on, and in the end status.hard is spec.hard to the byte.
package faults

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// Options say how much is broken.
type Options struct {
	Kills, Races, Rounds int
	Abreast              int           // how many races at a time
	VMs                  int           // of a namespace
	Hold                 time.Duration // how long a thief keeps what it gets
	Seed                 uint64
	Guard                string    // the folder of its manifests, such as examples/controller/guard/policy
	Log                  io.Writer // of the processes; nil: nowhere
}

// A Fault is one kind of things that break.
type Fault struct {
	Kind      string // in a word
	Name      string
	Library   process.Program // that the stage has; empty: none
	QuotaSync time.Duration   // that the bed has
	// Run breaks them, and says what came of it.
	Run func(t try.T, s *onbed.Stage, o Options) string
}

// shortSync is how often quotas are recounted in a bed where that must not take minutes.
const shortSync = 10 * time.Second

// All are all faults. After a restart the bed takes a while to recover.
var All = []Fault{
	{"kill", "kill -9 of two replicas", "", 0, kill},
	{"lock", "Rancher's write lock", "", 0, lock},
	{"adversary", "an adversary that resets the limit", "", 0, adversary},
	{"alone", "kube-controller-manager is down", "", 0, alone},
	{"races", "lost races", process.Headroom, 0, races},
	{"thief", "a thief, without a guard", process.Headroom, 0, steal},
	{"mint", "thieves, without a guard", process.Headroom, 0, mint},
	{"guard", "the same thief, with the guard", process.Guarded, 0, stealGuarded},
	{"twins", "a tenant and its twin, with the guard", process.Guarded, 0, runTwins},
	{"restart", "kill -9 of the control plane", "", 0, restart},
	{"gone", "the library is killed and never comes back", "", shortSync, gone},
}

// linger is how long a source pod goes on where nodes are drained.
const linger = 500 * time.Millisecond

// checkWrites reads in the audit log what the library wrote to the quota of a fleet: every
// static limit is enforced, none of them below static, and no other. It returns how many
// writes there were. What else must not be written is for [onbed.CheckAudit].
func checkWrites(f *onbed.Fleet) (writes int) {
	for _, rq := range f.Versions() {
		if !onbed.Wrote(rq.Event) {
			continue
		}
		writes++
		require.Len(f, rq.Status.Hard, len(f.Static), "write at %v", rq.Event.Received)
		for name, limit := range f.Static {
			hard := rq.Status.Hard[name]
			require.GreaterOrEqual(f, hard.Cmp(limit), 0, "write at %v: %s is %s, static is %s", rq.Event.Received, name, &hard, &limit)
		}
	}
	return writes
}

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

// adversary drains three nodes of a fleet, one after the other, while somebody sets status.hard
// back to spec.hard every 10 ms.
func adversary(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "adversary", o.VMs, onbed.FleetOptions{Linger: linger})
	library := s.StartProgram(t, process.Headroom, o.Log)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	resets, quotas := 0, s.Client.CoreV1().ResourceQuotas(f.Namespace())
	reset := try.Go(t, func(t try.T) {
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			rq, err := quotas.Get(t.Context(), onbed.FleetQuota, metav1.GetOptions{})
			if err == nil && !quota.Equal(rq.Status.Hard, rq.Spec.Hard) {
				rq.Status.Hard = rq.Spec.Hard.DeepCopy()
				if _, err = quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{}); err == nil {
					resets++
				}
			}
			if !apierrors.IsConflict(err) {
				require.NoError(t, err)
			}
		}
	})
	for i := range 3 {
		f.Evacuate(node(i))
	}
	stop()
	reset()
	f.AwaitRest()
	require.NoError(t, library.Stop())
	require.Positive(t, resets, "the adversary had nothing to reset")
	return fmt.Sprintf("3 nodes drained while status.hard was set back %d times, %d writes to the quota, none of them below static", resets, checkWrites(f))
}

// reader is a user with the rights of the library, but for the right to enforce limits.
const reader = "headroom-without-status"

// refusedFor is how long the library meets the refusal. It pauses for 0.5 s after the
// first one, and then twice as long each time.
const refusedFor = 12 * time.Second

// lock installs the write lock of Rancher 2.14.6 and 2.15.2, as a policy, on a quota that
// is full. A library without the right to update resourcequotas/status says so, and does
// not try again and again; one that has this right lets the same migration in.
func lock(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "lock", 1, onbed.FleetOptions{Quota: metav1.ObjectMeta{Name: onbed.FleetQuota, Labels: map[string]string{rancher.QuotaLabel: "true"}}})
	s.Bed.LockQuotas(t)
	checkLock(t, f)
	tries := meetRefusals(t, s, f, o)
	library := s.StartProgram(t, process.Headroom, o.Log)
	f.Succeeded("m0")
	f.AwaitRest()
	require.NoError(t, library.Stop())
	return fmt.Sprintf("with the right to update resourcequotas/status: the migration of a locked quota's VM succeeds, %d writes; "+
		"without it: %d writes tried in %v and refused, told in the log and in an event", checkWrites(f), tries, refusedFor)
}

// checkLock checks that the API server enforces the policy, also against administrators:
// spec, annotations and labels are locked, status is open.
func checkLock(t try.T, f *onbed.Fleet) {
	patch := func(patch string, subresources ...string) error {
		_, err := f.Client().CoreV1().ResourceQuotas(f.Namespace()).Patch(t.Context(), onbed.FleetQuota, types.MergePatchType, []byte(patch),
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
		return err
	}
	err := patch(`{"metadata":{"annotations":{"trial":"true"}}}`)
	require.True(t, apierrors.IsForbidden(err), "the lock lets annotations be written: %v", err)
	err = patch(fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, rancher.QuotaLabel), "status")
	require.True(t, apierrors.IsForbidden(err), "the lock lets the label be removed through status: %v", err)
	require.NoError(t, patch(`{"status":{"hard":{"limits.cpu":"100"}}}`, "status"), "the lock does not leave status open")
}

// meetRefusals migrates the VM of a fleet while the library has no right to update status,
// and returns how often it tried to. It has to tell that, and not to try too often.
func meetRefusals(t try.T, s *onbed.Stage, f *onbed.Fleet, o Options) (tries int) {
	s.Grant(t, reader)
	library := s.Launch(t, process.Headroom, reader, reader, o.Log)
	require.NoError(t, library.AwaitReady(t.Context()))
	f.Migrate(1, "")
	try.Sleep(t, refusedFor)
	require.NoError(t, library.Stop())
	for _, e := range f.Audit() {
		if e.User == reader && e.Resource == "resourcequotas" {
			tries++
			require.EqualValues(t, 403, e.Code, "a write without the right to: %s", e.Message)
		}
	}
	require.Positive(t, tries)
	// At once, after 0.5, 1.5, 3.5 and 7.5 s, and once more for a change.
	require.LessOrEqual(t, tries, 6, "writes without the right to")
	require.Contains(t, library.Log(), "cannot update resource", "the log does not say what was refused")
	events := try.Must(s.Client.CoreV1().Events(f.Namespace()).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=HeadroomRefused"}))(t)
	require.Len(t, events.Items, 1)
	return tries
}

// gone kills the library with SIGKILL in the middle of a raise and never starts it again:
// once while a target pod is charged, once while a target pod has not come. Then
// kube-controller-manager makes status.hard spec.hard again, within the period of
// bed.Config.QuotaSync.
func gone(t try.T, s *onbed.Stage, o Options) string {
	s.Bed.Create(t, gatePolicy)
	var took []time.Duration
	for _, gated := range []bool{false, true} {
		f := s.Fleet(t, "gone", 1, onbed.FleetOptions{})
		setGate(t, f, gated)
		library := s.StartProgram(t, process.Headroom, o.Log)
		f.Migrate(1, scenario.Hang)
		f.Raised()
		if !gated {
			f.AwaitPhase("m0", "Running")
			f.Raised()
		}
		require.NoError(t, library.Kill())
		killed := time.Now()
		require.True(t, f.State().Raised(), "the limit is lowered already when the library is killed")
		f.Enforces(f.Static)
		took = append(took, time.Since(killed).Round(time.Millisecond))
		for name := range f.Quota(t).Annotations {
			require.False(t, strings.HasPrefix(name, "headroom."), "annotation %s is left", name)
		}
	}
	return fmt.Sprintf("status.hard was spec.hard %v after the library was killed with a target pod charged, "+
		"%v after it was killed with room offered; no annotation left", took[0], took[1])
}
