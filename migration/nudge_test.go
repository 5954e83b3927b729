package migration_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

var start = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)

// nudged is a Nudger on a recording, and the times at which it patched.
type nudged struct {
	*migration.Nudger
	now     time.Time
	patches []time.Duration
	fail    error
}

func newNudged(t *testing.T, r *recorded) *nudged {
	n := &nudged{now: start}
	n.Nudger = &migration.Nudger{
		Caches: r.caches(),
		Quotas: r.quotas,
		Now:    func() time.Time { return n.now },
		Patch: func(_ context.Context, namespace, name string, patch []byte) error {
			if n.fail != nil {
				return n.fail
			}
			require.Equal(t, r.namespace, namespace)
			require.Equal(t, "m1", name)
			var body struct {
				Metadata struct{ Annotations map[string]time.Time }
			}
			require.NoError(t, json.Unmarshal(patch, &body))
			require.Equal(t, n.now, body.Metadata.Annotations[migration.NudgedAnnotation])
			n.patches = append(n.patches, n.now.Sub(start))
			return nil
		},
	}
	return n
}

// run nudges whenever it is asked to, until the time end.
func (n *nudged) run(t *testing.T, r *recorded, end time.Duration) {
	for {
		again, err := n.Nudge(t.Context(), r.namespace)
		require.NoError(t, err)
		if again == 0 || n.now.Add(again).Sub(start) > end {
			return
		}
		n.now = n.now.Add(again)
	}
}

func TestNudgeWaitsForTheRaiseToBeEnforced(t *testing.T) {
	r := recordingOf(t, "basic")
	n := newNudged(t, r)
	r.until(3375 * time.Millisecond) // spec.hard is raised, status.hard is not
	n.run(t, r, time.Hour)
	require.Empty(t, n.patches)
}

func TestNudgeComesAfterASecondAndThenWithGrowingPauses(t *testing.T) {
	r := recordingOf(t, "basic")
	n := newNudged(t, r)
	events := n.events()
	count := 0
	n.Nudged = func(context.Context, *kubevirtv1.VirtualMachineInstanceMigration) { count++ }
	r.until(3380 * time.Millisecond) // status.hard is raised, the pod is not there
	n.run(t, r, 200*time.Second)
	require.Equal(t, seconds(1, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 124.5, 184.5), n.patches)
	require.Len(t, events.Events, len(n.patches))
	require.Equal(t, len(n.patches), count)
}

func seconds(all ...float64) (durations []time.Duration) {
	for _, s := range all {
		durations = append(durations, time.Duration(s*float64(time.Second)))
	}
	return durations
}

func (n *nudged) events() *record.FakeRecorder {
	events := record.NewFakeRecorder(100)
	n.Recorder = events
	return events
}

func TestNudgeStopsWhenThePodIsThere(t *testing.T) {
	r := recordingOf(t, "basic")
	n := newNudged(t, r)
	r.until(3380 * time.Millisecond)
	n.run(t, r, 5*time.Second)
	r.until(3390 * time.Millisecond)
	n.run(t, r, time.Hour)
	require.Equal(t, seconds(1, 1.5, 2.5, 4.5), n.patches)
}

func TestNudgeForgetsWhomItNudged(t *testing.T) {
	r, later := recordingOf(t, "basic"), recordingOf(t, "basic")
	n := newNudged(t, r)
	r.until(3380 * time.Millisecond)
	n.run(t, r, 5*time.Second) // the next one would come at 8.5 s
	later.until(2 * time.Second)
	n.Caches, n.Quotas = later.caches(), later.quotas // not enforced any more
	n.run(t, r, 5*time.Second)
	n.Caches, n.Quotas = r.caches(), r.quotas
	n.now = start.Add(10 * time.Second)
	n.run(t, r, 12*time.Second)
	require.Equal(t, seconds(1, 1.5, 2.5, 4.5, 11, 11.5), n.patches)
}

func TestNudgeReportsErrors(t *testing.T) {
	r := recordingOf(t, "basic")
	n := newNudged(t, r)
	events := n.events()
	r.until(3380 * time.Millisecond)
	_, err := n.Nudge(t.Context(), r.namespace)
	require.NoError(t, err)

	n.now, n.fail = start.Add(time.Second), errors.New("no route")
	again, err := n.Nudge(t.Context(), r.namespace)
	require.ErrorIs(t, err, n.fail)
	require.ErrorContains(t, err, "nudge VirtualMachineInstanceMigration "+r.namespace+"/m1: ")
	require.Equal(t, 500*time.Millisecond, again)

	n.now, n.fail = start.Add(1500*time.Millisecond), apierrors.NewNotFound(schema.GroupResource{}, "m1")
	_, err = n.Nudge(t.Context(), r.namespace)
	require.NoError(t, err)
	require.Empty(t, events.Events)

	down := errors.New("not synced")
	n.Quotas = failing[corev1.ResourceQuota](down)
	_, err = n.Nudge(t.Context(), r.namespace)
	require.ErrorIs(t, err, down)
	n.Caches.Pods = failing[corev1.Pod](down)
	_, err = n.Nudge(t.Context(), r.namespace)
	require.ErrorIs(t, err, down)
}
