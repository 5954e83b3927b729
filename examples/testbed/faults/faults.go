// Package faults breaks things while virtual machines migrate on full quotas of a real
// control plane, and looks whether everything comes right: no limit below static is ever
// written, every migration gets on, and in the end status.hard is spec.hard to the byte.
package faults

import (
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
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
