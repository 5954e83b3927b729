package migration_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/migration"
)

// kept is what an informer with this transform keeps of objects as it receives them.
func kept[E any, T interface {
	*E
	metav1.Object
}](t require.TestingT, transform cache.TransformFunc, objects []T, received func(T) any) []T {
	var kept []T
	for _, o := range objects {
		if o != nil {
			got, err := transform(received(o))
			require.NoError(t, err)
			kept = append(kept, got.(T))
		}
	}
	return kept
}

// dynamic is o as a dynamic informer receives it.
func dynamic[T metav1.Object](t require.TestingT, kind string) func(T) any {
	return func(o T) any {
		text, err := json.Marshal(o)
		require.NoError(t, err)
		u := &unstructured.Unstructured{}
		require.NoError(t, json.Unmarshal(text, &u.Object))
		u.SetGroupVersionKind(kubevirtv1.SchemeGroupVersion.WithKind(kind))
		return u
	}
}

func transformed(t require.TestingT, s migration.Snapshot, with cache.TransformFunc) migration.Snapshot {
	s.Migrations = kept(t, with, s.Migrations, dynamic[*kubevirtv1.VirtualMachineInstanceMigration](t, "VirtualMachineInstanceMigration"))
	s.VMIs = kept(t, with, s.VMIs, dynamic[*kubevirtv1.VirtualMachineInstance](t, "VirtualMachineInstance"))
	s.Pods = kept(t, with, s.Pods, func(o *corev1.Pod) any { return o.DeepCopy() })
	s.PVCs = kept(t, with, s.PVCs, func(o *corev1.PersistentVolumeClaim) any { return o.DeepCopy() })
	s.LimitRanges = kept(t, with, s.LimitRanges, func(o *corev1.LimitRange) any { return o.DeepCopy() })
	s.Events = kept(t, with, s.Events, func(o *corev1.Event) any { return o.DeepCopy() })
	return s
}

// What Trim leaves out is read by nobody.
func TestTrimChangesNothing(t *testing.T) {
	check := func(t require.TestingT, s migration.Snapshot) {
		want, got := migration.InFlight(transformed(t, s, migration.Typed)), migration.InFlight(transformed(t, s, migration.Trim))
		require.Empty(t, cmp.Diff(want, got, amounts), "the trimmed objects say something else (-want +got)")
	}
	for name := range histories {
		for r := recordingOf(t, name); len(r.events) > 0; {
			r.until(r.events[0].At)
			check(t, r.cache.Snapshot(r.namespace))
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(t, stored.Draw(t, "snapshot").Snapshot) })
}

// Of a migration that is over there is left which one it was, and how and when it ended.
func TestTrimOfAMigrationThatIsOver(t *testing.T) {
	r := recordingOf(t, "basic")
	r.until(time.Minute)
	vmim := r.cache.Snapshot(r.namespace).Migrations[0]
	got, err := migration.Trim(dynamic[*kubevirtv1.VirtualMachineInstanceMigration](t, "VirtualMachineInstanceMigration")(vmim))
	require.NoError(t, err)
	want := &kubevirtv1.VirtualMachineInstanceMigration{
		TypeMeta: metav1.TypeMeta{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstanceMigration"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: vmim.Namespace, Name: vmim.Name, UID: vmim.UID, ResourceVersion: vmim.ResourceVersion, CreationTimestamp: vmim.CreationTimestamp,
		},
		Spec: vmim.Spec,
	}
	from, to := vmim.Status, &want.Status
	to.Phase = kubevirtv1.MigrationSucceeded
	to.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
		EndTimestamp: from.MigrationState.EndTimestamp, SourcePod: from.MigrationState.SourcePod, TargetPod: from.MigrationState.TargetPod,
		MigrationUID: vmim.UID, Completed: true,
	}
	require.NotNil(t, to.MigrationState.EndTimestamp)
	to.PhaseTransitionTimestamps = from.PhaseTransitionTimestamps[len(from.PhaseTransitionTimestamps)-1:]
	require.Empty(t, cmp.Diff(want, got))
	again, err := migration.Trim(got)
	require.NoError(t, err)
	require.Equal(t, got, again)
}
