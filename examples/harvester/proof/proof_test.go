package proof

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/harvester/old"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A target pod is refused, with the write lock in force. Then the program comes, and so does
// the target pod; and that of the next migration.
func TestRefusedMigration(t *testing.T) {
	s := newScene(t, true)
	s.migrate("first", "")
	s.refused()
	p := startProgram(t, asApplied)
	s.await("first", kubevirtv1.MigrationSucceeded)
	s.settled()
	s.migrate("second", "")
	s.await("second", kubevirtv1.MigrationSucceeded)
	s.settled()
	writes := s.writes(p)
	require.Contains(t, writes, spelled(s.plus(1)))
	t.Logf("%d writes", len(writes))
}

// A Harvester of today that scales by itself is beside the program. With the lock its writes
// fail, and without it raises spec.hard. The migrations succeed, and what is left is what it
// alone would have left: the annotation that says that spec.hard has followed.
func TestBesideAHarvesterThatScales(t *testing.T) {
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			s := newScene(t, locked)
			refused := make(chan bool, 1)
			go s.scale(t.Context(), refused)
			p := startProgram(t, fmt.Sprintf("beside-%v", locked))
			for i := range 3 {
				name := fmt.Sprint("m", i)
				s.migrate(name, "")
				s.await(name, kubevirtv1.MigrationSucceeded)
			}
			if locked {
				s.settled()
				require.True(t, <-refused)
			} else {
				s.settled(old.Resync)
				require.Empty(t, refused)
			}
			t.Logf("%d writes", len(s.writes(p)))
		})
	}
}

// scale does what a Harvester of today does, until ctx is done. Refused receives true when a
// write was refused.
func (s *scene) scale(ctx context.Context, refused chan<- bool) {
	config, err := shared.User("old-harvester", "system:masters")
	if !assert.NoError(s.t, err) {
		return
	}
	client, err := kubernetes.NewForConfig(config)
	if !assert.NoError(s.t, err) {
		return
	}
	for ctx.Err() == nil {
		time.Sleep(tick)
		vmis, first := s.vmis.List(ctx)
		migrations, second := s.vmims.List(ctx)
		if first != nil || second != nil {
			continue
		}
		if err := old.Sync(ctx, client, s.namespace, vmis, migrations, s.static.Spec.Hard); apierrors.IsForbidden(err) {
			select {
			case refused <- true:
			default:
			}
		}
	}
}

// An old Harvester has leaked an entry, and left spec.hard raised. The program makes room
// on top of that, and cleaning in the middle of a migration leaves the static limits.
func TestCleanInMidFlight(t *testing.T) {
	s := newScene(t, false)
	used := s.static.Spec.Hard
	s.write(func(rq *corev1.ResourceQuota) {
		rq.Annotations = map[string]string{old.Entry + "5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01": spelled(used), old.Resync: "false"}
		rq.Spec.Hard = s.plus(1)
	})
	p := startProgram(t, "successor")
	s.migrate("first", sim.Hang)
	s.await("first", kubevirtv1.MigrationRunning)
	s.enforces(s.plus(2))
	require.NoError(t, rancher.CleanNamespace(t.Context(), admin.CoreV1(), s.namespace))
	s.enforces(s.plus(1))
	require.Equal(t, spelled(used), spelled(s.quota(t).Spec.Hard))
	s.await("first", kubevirtv1.MigrationRunning)

	_, err := s.vmims.Patch(t.Context(), "first", fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, sim.MigrationAnnotation))
	require.NoError(t, err)
	s.await("first", kubevirtv1.MigrationSucceeded)
	s.settled()
	t.Logf("%d writes", len(s.writes(p)))
}

func (s *scene) enforces(limits corev1.ResourceList) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) { require.Equal(c, spelled(limits), spelled(s.quota(c).Status.Hard)) })
}
