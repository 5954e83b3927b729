package migration_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// refusalMessage is what KubeVirt says when quota was asked for amounts and refused.
func refusalMessage(amounts string) string {
	return `Error creating pod: pods "virt-launcher-vm1-x7k2p" is forbidden: exceeded quota: q, requested: ` + amounts +
		", used: limits.cpu=9,limits.memory=9Ti, limited: limits.cpu=10,limits.memory=10Ti"
}

// refusal is the event of a target pod of vmi for which quota was asked for amounts.
func refusal(amounts, vmi string, at metav1.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "tenant", Name: vmi + ".1", CreationTimestamp: at},
		InvolvedObject: corev1.ObjectReference{Kind: "VirtualMachineInstance", Name: vmi, UID: types.UID("uid-" + vmi)},
		Reason:         "FailedCreate",
		Message:        refusalMessage(amounts),
		LastTimestamp:  at,
	}
}

// A target pod that needs more than its source, for reasons that no object shows, is
// let in by what quota said that it was asked for.
func TestRefusalSaysWhatTheTargetCosts(t *testing.T) {
	asked := "limits.cpu=1115m,limits.memory=3000000000"
	corrected := with(onePod, "limits.cpu=1115m limits.memory=3000000000")
	says := func(message string) func(*scene, *corev1.Event) {
		return func(_ *scene, event *corev1.Event) { event.Message = message }
	}
	asks := func(amounts string) func(*scene, *corev1.Event) { return says(refusalMessage(amounts)) }
	seen := func(first, last, at, series time.Time) func(*scene, *corev1.Event) {
		return func(_ *scene, event *corev1.Event) {
			event.CreationTimestamp, event.FirstTimestamp, event.LastTimestamp = metav1.NewTime(first), metav1.NewTime(first), metav1.NewTime(last)
			event.EventTime, event.Series = metav1.NewMicroTime(at), &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(series)}
		}
	}
	never, later := time.Time{}, dawn.Add(time.Hour)
	for name, c := range map[string]struct {
		change func(s *scene, event *corev1.Event)
		want   corev1.ResourceList
	}{
		"as it is":                        {asks(asked), corrected},
		"aggregated":                      {says("(combined from similar events): " + refusalMessage(asked)), corrected},
		"first seen before the migration": {seen(dawn, later, never, never), corrected},
		"of the newer kind":               {seen(never, never, later, never), corrected},
		"of a series":                     {seen(dawn, dawn, never, later), corrected},
		"older than the migration":        {seen(dawn, dawn, never, never), onePod},
		"seen in the same second": {func(s *scene, event *corev1.Event) {
			s.Migrations[0].CreationTimestamp = metav1.NewTime(event.LastTimestamp.Add(999 * time.Millisecond))
		}, corrected},
		"two quotas, one after the other": {func(s *scene, event *corev1.Event) {
			event.Message = refusalMessage("limits.cpu=1115m")
			s.Events = append(s.Events, refusal("limits.memory=3000000000", "vm1", event.LastTimestamp))
		}, corrected},
		"less than the estimate":               {asks("limits.cpu=15m,limits.memory=1"), onePod},
		"a resource that the pod does not use": {asks("requests.nvidia.com/gpu=1"), onePod},
		"four times the estimate":              {asks("limits.cpu=4060m"), with(onePod, "limits.cpu=4060m")},
		"more than that":                       {asks("limits.cpu=4061m"), onePod},
		"an absurd exponent":                   {asks("limits.cpu=1e999999999,limits.memory=1e-999999999"), onePod},
		"cut off":                              {says(`Error creating pod: pods "x" is forbidden: exceeded quota: q, requested: limits.cpu=1115m`), onePod},
		"of an attachment pod":                 {says("Error creating attachment pod: exceeded quota: q, requested: limits.cpu=1115m, used: "), onePod},
		"of another VMI":                       {func(_ *scene, event *corev1.Event) { event.InvolvedObject.UID = "uid-vm2" }, onePod},
		"of another kind":                      {func(_ *scene, event *corev1.Event) { event.InvolvedObject.Kind = "ReplicaSet" }, onePod},
		"for another reason":                   {func(_ *scene, event *corev1.Event) { event.Reason = "Started" }, onePod},
		"while CPUs are hot-plugged":           {func(s *scene, _ *corev1.Event) { hotPlug(s.vm, cpuChange) }, onePod},
		"while memory is hot-plugged":          {func(s *scene, _ *corev1.Event) { hotPlug(s.vm, memoryChange) }, onePod},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.refused(s.vm, "m1")
			event := refusal(asked, "vm1", metav1.NewTime(m.CreationTimestamp.Add(time.Second)))
			s.Events = []*corev1.Event{nil, event}
			c.change(s, event)
			s.expect(flight{"uid-m1", quota.Blocked, c.want, nil})
		})
	}
}

// Once there is a target pod it is the truth.
func TestTargetPodBeatsRefusal(t *testing.T) {
	s := newScene(t)
	m, _ := s.running(s.vm, s.source, "m1", "target")
	s.Events = []*corev1.Event{refusal("limits.cpu=1115m", "vm1", metav1.NewTime(m.CreationTimestamp.Add(time.Second)))}
	s.expect(flight{"uid-m1", quota.Charged, onePod, onePod})
}

func TestSelectRefusals(t *testing.T) {
	var options metav1.ListOptions
	migration.SelectRefusals(&options)
	selector, err := fields.ParseSelector(options.FieldSelector)
	require.NoError(t, err)
	event := refusal("", "vm1", metav1.Time{})
	require.True(t, selector.Matches(fields.Set{"reason": event.Reason, "involvedObject.kind": event.InvolvedObject.Kind}))
	require.False(t, selector.Matches(fields.Set{"reason": "Started", "involvedObject.kind": event.InvolvedObject.Kind}))
	require.False(t, selector.Matches(fields.Set{"reason": event.Reason, "involvedObject.kind": "ReplicaSet"}))
}

// TestRefusedBy: the newest refusal names the quota.
func TestRefusedBy(t *testing.T) {
	by := func(name string, at metav1.Time) *corev1.Event {
		event := refusal("limits.cpu=1015m", "vm1", at)
		event.Message = strings.Replace(event.Message, "exceeded quota: q,", "exceeded quota: "+name+",", 1)
		event.UID = types.UID(name)
		return event
	}
	s := newScene(t)
	m := s.refused(s.vm, "m1")
	at := func(seconds int) metav1.Time {
		return metav1.NewTime(m.CreationTimestamp.Add(time.Duration(seconds) * time.Second))
	}
	refusedBy := func() string {
		got := migration.InFlight(s.Snapshot)
		require.Len(t, got, 1)
		return got[0].RefusedBy
	}
	require.Empty(t, refusedBy())
	s.Events = []*corev1.Event{by("before", at(-60)), by("second", at(2)), by("first", at(1))}
	require.Equal(t, "second", refusedBy())
	slices.Reverse(s.Events)
	require.Equal(t, "second", refusedBy())
	s.Events[0].Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at(3).Time)} // again
	require.Equal(t, "first", refusedBy())
	s.Events = append(s.Events, by("not a name", at(9)), by("", at(9)), by(strings.Repeat("x", 254), at(9)))
	require.Equal(t, "first", refusedBy())

	m.Status.Conditions = nil
	require.Empty(t, refusedBy(), "it is not refused")
	condition(m, rejected, corev1.ConditionTrue)
	s.Events = s.Events[2:3]
	require.Empty(t, refusedBy(), "another migration was")
	s.Events = []*corev1.Event{by("q", at(1))}
	s.launcher(s.vm, "target", m.UID)
	require.Empty(t, refusedBy(), "its target pod is there")
}
