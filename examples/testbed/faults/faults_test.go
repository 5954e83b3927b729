package faults_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/faults"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

func TestMain(m *testing.M) {
	process.Main()
	os.Exit(m.Run())
}

// A short run of what the command faults does hundreds of times, with two API servers, as
// real clusters have them: the library is on one, and everybody else on the other. What
// happens when the library is gone for good has a bed of its own.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: it needs a real control plane")
	}
	beds := map[time.Duration]*bed.Bed{}
	for _, f := range faults.All {
		// One race at a time, because KubeVirt also wakes when another migration ends.
		o := faults.Options{Kills: 20, Races: 2, Abreast: 1, Rounds: 1, VMs: 6, Hold: 2 * time.Second, Seed: 1}
		o.Guard = filepath.Join("..", "..", "controller", "guard", "policy")
		switch f.Kind {
		case "mint":
			continue // takes long, and promises nothing
		case "alone":
			o.Rounds = 2
		case "thief", "guard":
			o.VMs = 3
		}
		if beds[f.QuotaSync] == nil {
			beds[f.QuotaSync] = bed.Start(t, bed.Config{Step: 50 * time.Millisecond, APIServers: 2, QuotaSync: f.QuotaSync, Log: os.Stderr})
		}
		t.Run(f.Kind, func(t *testing.T) {
			t.Log(f.Run(t, onbed.NewStage(t, beds[f.QuotaSync], f.Library, nil), o))
		})
	}
}
