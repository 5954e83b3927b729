package proof

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/harvester/old"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A target pod is refused, with the write lock in force. Then the program comes, and so does
// the target pod; and that of the next migration.
func TestRefusedMigration(t *testing.T) {
	s := newScene(t, true)
	s.CreateMigration(scenario.Migrate{Name: "first", VM: "vm0"})
	s.AwaitPhase("first", scenario.Refused)
	p := startProgram(t, asApplied)
	s.Succeeded("first")
	s.AwaitRest()
	s.CreateMigration(scenario.Migrate{Name: "second", VM: "vm0"})
	s.Succeeded("second")
	s.AwaitRest()
	require.Contains(t, s.writes(asApplied, p), onbed.Spelled(s.Plus(1)))
}

// A Harvester of today that scales by itself is beside the program. With the lock its writes
// fail, and without it raises spec.hard. The migrations succeed, and what is left is what it
// alone would have left: the annotation that says that spec.hard has followed.
func TestBesideAHarvesterThatScales(t *testing.T) {
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			s := newScene(t, locked)
			refused := make(chan bool, 1)
			s.scale(t.Context(), refused)
			account := fmt.Sprintf("beside-%v", locked)
			p := startProgram(t, account)
			for i := range 3 {
				name := fmt.Sprint("m", i)
				s.CreateMigration(scenario.Migrate{Name: name, VM: "vm0"})
				s.Succeeded(name)
			}
			if locked {
				s.AwaitRest()
				require.True(t, <-refused)
			} else {
				s.AwaitRest(old.Resync)
				require.Empty(t, refused)
			}
			s.writes(account, p)
		})
	}
}

// scale does what a Harvester of today does, until ctx is done or the test ends. Refused
// receives true when a write was refused.
func (s scene) scale(ctx context.Context, refused chan<- bool) {
	client := try.Must(kubernetes.NewForConfig(stage.Bed.User(s, "old-harvester", "system:masters")))(s)
	try.Go(s, func(try.T) {
		for ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
			vmis, first := s.VMIs().List(ctx)
			migrations, second := s.VMIMs().List(ctx)
			if first != nil || second != nil {
				continue
			}
			if err := old.Sync(ctx, client, s.Namespace(), vmis, migrations, s.Static); apierrors.IsForbidden(err) {
				select {
				case refused <- true:
				default:
				}
			}
		}
	})
}

// An old Harvester has leaked an entry, and left spec.hard raised. The program makes room
// on top of that, and cleaning in the middle of a migration leaves the static limits.
func TestCleanInMidFlight(t *testing.T) {
	s := newScene(t, false)
	try.Eventually(t, func(c try.T) { // it may have been written in between
		rq := s.Quota(c)
		rq.Annotations = map[string]string{old.Entry + "5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01": onbed.Spelled(s.Static), old.Resync: "false"}
		rq.Spec.Hard = s.Plus(1)
		try.Must(rancherClient.CoreV1().ResourceQuotas(s.Namespace()).Update(c.Context(), rq, metav1.UpdateOptions{}))(c)
	})
	s.Enforces(s.Plus(1))
	p := startProgram(t, "successor")
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Enforces(s.Plus(2))
	require.NoError(t, rancher.CleanNamespace(t.Context(), stage.Client.CoreV1(), s.Namespace()))
	s.Enforces(s.Plus(1))
	require.Equal(t, onbed.Spelled(s.Static), onbed.Spelled(s.Quota(t).Spec.Hard))
	s.AwaitPhase("m0", "Running")
	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()
	s.writes("successor", p)
}
