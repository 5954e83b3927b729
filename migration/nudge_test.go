package migration_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// nudged is a Controller that only records and nudges, and the times at which it patched.
type nudged struct {
	*controlled
	events  *record.FakeRecorder
	count   int
	patches []time.Duration
	fail    error
}

func newNudged(t *testing.T) *nudged {
	n := &nudged{events: record.NewFakeRecorder(100)}
	n.controlled = newControlled(t, "basic", recordOnly, func(o *migration.Options) {
		o.Recorder = n.events
		o.Nudged = func(context.Context, *kubevirtv1.VirtualMachineInstanceMigration) { n.count++ }
		o.Patch = func(_ context.Context, namespace, name string, patch []byte) error {
			if n.fail != nil {
				return n.fail
			}
			require.Equal(t, n.namespace, namespace)
			require.Equal(t, "m1", name)
			var body struct {
				Metadata struct{ Annotations map[string]time.Time }
			}
			require.NoError(t, json.Unmarshal(patch, &body))
			require.Equal(t, n.now, body.Metadata.Annotations[migration.NudgedAnnotation])
			n.patches = append(n.patches, n.now.Sub(start))
			return nil
		}
	})
	return n
}

// run reconciles whenever it is asked to, until the time end.
func (n *nudged) run(t *testing.T, end time.Duration) {
	for {
		again := n.reconcile(t)
		if again == 0 || n.now.Add(again).Sub(start) > end {
			return
		}
		n.now = n.now.Add(again)
	}
}

func millis(all ...int) (durations []time.Duration) {
	for _, ms := range all {
		durations = append(durations, time.Duration(ms)*time.Millisecond)
	}
	return durations
}

func TestNudgeWaitsForTheRoomToBeEnforced(t *testing.T) {
	n := newNudged(t)
	n.until(3375 * time.Millisecond) // spec.hard is raised, status.hard is not
	n.run(t, time.Hour)
	require.Empty(t, n.patches)
}

func TestNudgeComesSoonAndThenWithGrowingPauses(t *testing.T) {
	n := newNudged(t)
	n.until(3380 * time.Millisecond) // status.hard is raised, the pod is not there
	n.run(t, 200*time.Second)
	require.Equal(t, millis(50, 150, 350, 750, 1550, 3150, 6350, 12750, 25550, 51150, 102350, 162350), n.patches)
	require.Len(t, n.events.Events, len(n.patches))
	require.Equal(t, len(n.patches), n.count)
}

func TestNudgeStopsWhenThePodIsThere(t *testing.T) {
	n := newNudged(t)
	n.until(3380 * time.Millisecond)
	n.run(t, time.Second)
	n.until(3390 * time.Millisecond)
	n.run(t, time.Hour)
	require.Equal(t, millis(50, 150, 350, 750), n.patches)
}

func TestNudgeForgetsMigrationsWithoutRoom(t *testing.T) {
	n := newNudged(t)
	n.until(3380 * time.Millisecond)
	n.run(t, time.Second) // the next one would come at 1.55 s
	raised := *n.recorded
	*n.recorded = *recordingOf(t, "basic")
	n.until(2 * time.Second) // not enforced any more
	n.run(t, time.Second)
	*n.recorded = raised
	n.now = start.Add(10 * time.Second)
	n.run(t, 10200*time.Millisecond)
	require.Equal(t, millis(50, 150, 350, 750, 10050, 10150), n.patches)
}

func TestNudgeReportsErrors(t *testing.T) {
	n := newNudged(t)
	n.until(3380 * time.Millisecond)
	n.reconcile(t)

	n.now, n.fail = start.Add(50*time.Millisecond), errors.New("no route")
	again, err := n.Reconcile(t.Context(), n.namespace)
	require.ErrorIs(t, err, n.fail)
	require.ErrorContains(t, err, "nudge VirtualMachineInstanceMigration "+n.namespace+"/m1: ")
	require.Equal(t, 100*time.Millisecond, again)

	n.now, n.fail = start.Add(150*time.Millisecond), apierrors.NewNotFound(schema.GroupResource{}, "m1")
	again, err = n.Reconcile(t.Context(), n.namespace)
	require.NoError(t, err)
	require.Equal(t, 200*time.Millisecond, again)
	require.Empty(t, n.events.Events)
}

// TestNoNudgeIfRefusedElsewhere: the room of the namespace's quotas is not what it waits for.
func TestNoNudgeIfRefusedElsewhere(t *testing.T) {
	for by, want := range map[string]int{"cluster-quota": 0, "q": 4} {
		n := newNudged(t)
		n.until(3380 * time.Millisecond)
		s := n.cache.Snapshot(n.namespace)
		event := refusal("limits.cpu=1015m", "vm1", s.Migrations[0].CreationTimestamp)
		event.InvolvedObject.UID, event.Namespace = s.VMIs[0].UID, n.namespace
		event.Message = strings.Replace(event.Message, "exceeded quota: q,", "exceeded quota: "+by+",", 1)
		n.cache.Apply(recording.Event{Type: watch.Added, Object: event})
		n.run(t, time.Second)
		require.Len(t, n.patches, want, by)
	}
}

// KubeVirt puts migrations off while it creates the target pod of another one.
func TestNudgeWithAnOffer(t *testing.T) {
	var s *controlled
	var patches []time.Duration
	s = newControlled(t, "basic", func(o *migration.Options) {
		o.Patch = func(context.Context, string, string, []byte) error {
			patches = append(patches, s.now.Sub(start))
			return nil
		}
	})
	s.until(1340 * time.Millisecond)
	vmims := s.cache.Snapshot(s.namespace).Migrations
	require.Len(t, vmims, 1)
	require.Equal(t, kubevirtv1.MigrationPending, vmims[0].Status.Phase)
	require.Empty(t, vmims[0].Status.Conditions, "not refused")
	require.NoError(t, s.client.Tracker().Add(s.cache.Quotas(s.namespace)[0]))
	for range 5 {
		after := s.reconcile(t)
		if s.now = s.now.Add(after); s.now.Sub(start) > 500*time.Millisecond {
			break
		}
	}
	require.Equal(t, millis(150, 250, 450), patches)
}
