package migration_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// onePod is what quota charges for a virt-launcher pod of the recordings. Of its
// limits, 1 core and 2588Mi are of the container compute, 15m and 60M of the sidecar
// that logs the serial console, which runs as long as it; of its requests 100m and
// 1294Mi, and 5m and 35M. The init container volumed of the first pod of each VMI
// needs less, so it adds nothing; it needs as much ephemeral storage as compute.
var onePod = list(`
	pods=1 count/pods=1
	limits.cpu=1015m limits.memory=2773714688
	requests.cpu=105m cpu=105m
	requests.memory=1391857344 memory=1391857344
	requests.ephemeral-storage=50M ephemeral-storage=50M
	requests.devices.kubevirt.io/kvm=1 requests.devices.kubevirt.io/tun=1 requests.devices.kubevirt.io/vhost-net=1`)

// The quota of "resized" limits no memory, so KubeVirt sets no limit of memory on compute.
var (
	unresizedPod = with(onePod, "limits.memory=60M")
	resizedPod   = with(unresizedPod, "limits.cpu=2015m")
)

// A moment is a change of what is in flight. At most one migration is, in the
// recordings.
type moment struct {
	at    time.Duration
	uid   types.UID // "": none is in flight any more
	state quota.State
	surge corev1.ResourceList
	held  corev1.ResourceList
}

// histories are the answers to the recordings, worked out by hand from their events.
// The line of a recording that brings the change is given with the reason.
var histories = map[string][]moment{
	"basic": {
		// 19: the VMIM is there. KubeVirt would render the source pod once more.
		{1317 * time.Millisecond, "2978a3d7-c202-4ea0-a619-8e27b239d293", quota.Queued, onePod, nil},
		// 23: quota refused the target pod. Raising the quota (24 to 26) changes nothing.
		{1360 * time.Millisecond, "2978a3d7-c202-4ea0-a619-8e27b239d293", quota.Blocked, onePod, nil},
		// 27: the target pod is there; the VMIM, still Pending, says it is refused until 30.
		{3390 * time.Millisecond, "2978a3d7-c202-4ea0-a619-8e27b239d293", quota.Charged, onePod, onePod},
		// 41: completed. From here it is the source that is one too many, and as large.
		// 45: Succeeded changes nothing. 48: the source pod is terminal.
		{7478 * time.Millisecond, "", 0, nil, nil},
	},
	"abort": {
		// 19: the first VMIM, a1.
		{1301 * time.Millisecond, "c4326f86-ae29-4284-ad30-8e00ded0eed3", quota.Queued, onePod, nil},
		// 23: a1 is refused.
		{1335 * time.Millisecond, "c4326f86-ae29-4284-ad30-8e00ded0eed3", quota.Blocked, onePod, nil},
		// 24: a1 is deleted, so KubeVirt will not try again. It still says it is
		// refused, and at 25 is Failed.
		{2344 * time.Millisecond, "", 0, nil, nil},
		// 29: the second, a2.
		{2393 * time.Millisecond, "77c24f7f-46eb-4d03-99cc-204b637b6aa4", quota.Queued, onePod, nil},
		// 33: its target pod.
		{2422 * time.Millisecond, "77c24f7f-46eb-4d03-99cc-204b637b6aa4", quota.Charged, onePod, onePod},
		// 46: deleted while Running. 52: the VMIM is gone. 53: its pod is terminal.
		{4072 * time.Millisecond, "", 0, nil, nil},
		// 55: the third, a3. The VMI's migrationState is still that of a2.
		{5080 * time.Millisecond, "a4f8f8bf-6424-40fe-9de7-8593e0f13663", quota.Queued, onePod, nil},
		// 59: its target pod.
		{5108 * time.Millisecond, "a4f8f8bf-6424-40fe-9de7-8593e0f13663", quota.Charged, onePod, onePod},
		// 62: a3 is deleted in Scheduling. 63: the pod is being deleted with no grace,
		// and is charged. 64: it is gone, while the VMIM is in Scheduling until 66.
		{5165 * time.Millisecond, "", 0, nil, nil},
	},
	"fail": {
		// 21: the VMIM. The quota has room: it is never refused.
		{1333 * time.Millisecond, "1ec004af-b432-49ed-8350-035341b0a7ef", quota.Queued, onePod, nil},
		// 26: the target pod.
		{1381 * time.Millisecond, "1ec004af-b432-49ed-8350-035341b0a7ef", quota.Charged, onePod, onePod},
		// 40: Failed changes nothing. 43: the target pod is terminal.
		{2570 * time.Millisecond, "", 0, nil, nil},
	},
	"vmidelete": {
		// 21: the first VMIM, d1.
		{1335 * time.Millisecond, "4a671254-ebc8-4c8d-888e-678246c448c3", quota.Queued, onePod, nil},
		// 26: its target pod.
		{1382 * time.Millisecond, "4a671254-ebc8-4c8d-888e-678246c448c3", quota.Charged, onePod, onePod},
		// 39: the VMI is deleted; both pods are charged until they end. 43: the source
		// is terminal, the target is all that is left.
		{2669 * time.Millisecond, "", 0, nil, nil},
		// 74: d2, of a new VMI of the same name.
		{5403 * time.Millisecond, "8f94fb0a-84c9-439d-904a-6acf0dece5ba", quota.Queued, onePod, nil},
		// 78: d2 is refused.
		{5462 * time.Millisecond, "8f94fb0a-84c9-439d-904a-6acf0dece5ba", quota.Blocked, onePod, nil},
		// 79: the VMI is deleted. d2 says it is refused to its end, 90.
		{5492 * time.Millisecond, "", 0, nil, nil},
	},
	"enforced": {
		// 16: the VMIM. 18: headroom enforces room before KubeVirt tries.
		{399 * time.Millisecond, "529d6eb4-0355-4696-8c98-87c62b6a6fd4", quota.Queued, onePod, nil},
		// 22: its target pod, never refused.
		{521 * time.Millisecond, "529d6eb4-0355-4696-8c98-87c62b6a6fd4", quota.Charged, onePod, onePod},
		// 40: the source pod is terminal.
		{1153 * time.Millisecond, "", 0, nil, nil},
	},
	"resized": {
		// 18: the VMIM. A limit of memory is not ruled out yet. 22: its target pod, in the room
		// that there is.
		{446 * time.Millisecond, "d9883fa8-757c-4727-acee-ba8c292efb0c", quota.Queued, onePod, nil},
		{571 * time.Millisecond, "d9883fa8-757c-4727-acee-ba8c292efb0c", quota.Charged, unresizedPod, unresizedPod},
		// 44: completed at 37, and now the source pod is resized: compute from 1 to 2 cores,
		// the console from 15m to 10m. API servers charge 2010m, or 2015m until it is done.
		{1212 * time.Millisecond, "d9883fa8-757c-4727-acee-ba8c292efb0c", quota.Charged, resizedPod, resizedPod},
		// 48: the source pod is terminal.
		{1406 * time.Millisecond, "", 0, nil, nil},
	},
	"autolimits": {
		// 43: the VMIM. The source has no limits on compute, but a quota demands them
		// by now, so KubeVirt will set 1 core and twice the request.
		{2589 * time.Millisecond, "34ce9ea8-6483-493e-bfe0-aa6e9cca4761", quota.Queued, onePod, nil},
		// 48: the target pod has them. The recording ends while the migration runs.
		{2622 * time.Millisecond, "34ce9ea8-6483-493e-bfe0-aa6e9cca4761", quota.Charged, onePod, onePod},
	},
}

// history plays events and returns each change of what is in flight. It fails where
// an invariant breaks.
func history(t *testing.T, events []recording.Event) []moment {
	t.Helper()
	namespace := events[0].Object.GetNamespace()
	var cache recording.Cache
	var moments []moment
	last := moment{}
	largest := maps.Clone(onePod)
	for i, e := range events {
		cache.Apply(e)
		if pod, ok := e.Object.(*corev1.Pod); ok {
			for name, q := range quota.Footprint(pod) {
				if most, known := largest[name]; !known || most.Cmp(q) < 0 {
					largest[name] = q
				}
			}
		}
		s := cache.Snapshot(namespace)
		got := migration.InFlight(s)
		line := fmt.Sprintf("line %d", i+1)
		require.NoError(t, broken(s, got), line)
		require.NoError(t, unaccounted(&cache, namespace, largest, got), line)
		require.LessOrEqual(t, len(got), 1, line)
		now := moment{}
		if len(got) == 1 {
			now = moment{uid: got[0].UID, state: got[0].State, surge: got[0].Surge, held: held(got[0])}
			require.Equal(t, "vm1", got[0].VMI, line)
			require.Nil(t, got[0].Shares, line)
		}
		if !cmp.Equal(now, last, amounts, cmp.AllowUnexported(moment{})) {
			last = now
			now.at = e.At
			moments = append(moments, now)
		}
	}
	return moments
}

// unaccounted compares the status of quotas with got: usage contains what is held,
// and besides no more than the pods that the VMIs run in, and one, at most largest, that the
// cache does not have yet, or has terminal already.
func unaccounted(cache *recording.Cache, namespace string, largest corev1.ResourceList, got []quota.Migration) error {
	s := cache.Snapshot(namespace)
	var temporary, usage corev1.ResourceList
	for _, m := range got {
		temporary = plus(temporary, held(m))
	}
	for _, pod := range s.Pods {
		usage = plus(usage, quota.Footprint(pod))
	}
	for _, rq := range cache.Quotas(namespace) {
		for name, used := range rq.Status.Used {
			if q := temporary[name]; used.Cmp(q) < 0 {
				return fmt.Errorf("%s: %s held of %s used", name, q.String(), used.String())
			}
			most := usage[name].DeepCopy()
			most.Add(largest[name])
			if used.Cmp(most) > 0 {
				return fmt.Errorf("%s: used %s, pods %s", name, used.String(), text(usage))
			}
			least := used.DeepCopy()
			least.Add(largest[name])
			if least.Cmp(usage[name]) < 0 {
				return fmt.Errorf("%s: used %s, pods %s", name, used.String(), text(usage))
			}
		}
	}
	return nil
}

func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/recordings/*.jsonl")
	require.NoError(t, err)
	require.Len(t, files, len(histories), "a recording without a history, or the other way round")
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		t.Run(name, func(t *testing.T) {
			got := history(t, recordingOf(t, name).events)
			if diff := cmp.Diff(histories[name], got, amounts, cmp.AllowUnexported(moment{})); diff != "" {
				t.Errorf("the history is another one (-worked out by hand +got):\n%s", diff)
			}
		})
	}
}

// TestLevelTriggered: whatever events are missed, come twice, or overtake those of
// other kinds, the answer is the same once the last event of each object is in.
func TestLevelTriggered(t *testing.T) {
	recordings := map[string][]recording.Event{}
	for name := range histories {
		recordings[name] = recordingOf(t, name).events
	}
	names := slices.Sorted(maps.Keys(recordings))
	rapid.Check(t, func(t *rapid.T) {
		events := recordings[rapid.SampledFrom(names).Draw(t, "recording")]
		events = events[:rapid.IntRange(1, len(events)).Draw(t, "lines")]
		namespace := events[0].Object.GetNamespace()
		var plain, garbled recording.Cache
		for _, e := range events {
			plain.Apply(e)
		}
		want := migration.InFlight(plain.Snapshot(namespace))

		disorder := garble(t, events)
		watched := rapid.IntRange(0, len(disorder)-1).Draw(t, "watched")
		for i, e := range disorder {
			garbled.Apply(e)
			if i == watched {
				s := garbled.Snapshot(namespace)
				if err := broken(s, migration.InFlight(s)); err != nil {
					t.Fatalf("after %d of the garbled events: %v", i+1, err)
				}
			}
		}
		got := migration.InFlight(garbled.Snapshot(namespace))
		if diff := cmp.Diff(want, got, amounts); diff != "" {
			t.Fatalf("the garbled events end elsewhere (-in order +garbled):\n%s", diff)
		}
	})
}

// garble drops events, but for the last of an object, repeats some, and lets the
// kinds overtake each other.
func garble(t *rapid.T, events []recording.Event) []recording.Event {
	last := map[string]int{}
	for i, e := range events {
		last[objectOf(e)] = i
	}
	byKind := map[string][]recording.Event{}
	fates := rapid.SliceOfN(rapid.IntRange(0, 3), len(events), len(events)).Draw(t, "fates")
	for i, e := range events {
		kind := fmt.Sprintf("%T", e.Object)
		if fates[i] == 0 && last[objectOf(e)] != i {
			continue
		}
		byKind[kind] = append(byKind[kind], e)
		if fates[i] == 1 {
			byKind[kind] = append(byKind[kind], e)
		}
	}
	var garbled []recording.Event
	for len(byKind) > 0 {
		kinds := slices.Sorted(maps.Keys(byKind))
		kind := rapid.SampledFrom(kinds).Draw(t, "next")
		n := rapid.IntRange(1, len(byKind[kind])).Draw(t, "in a row")
		garbled = append(garbled, byKind[kind][:n]...)
		if byKind[kind] = byKind[kind][n:]; len(byKind[kind]) == 0 {
			delete(byKind, kind)
		}
	}
	return garbled
}

// objectOf names the object of e as an informer's cache does.
func objectOf(e recording.Event) string {
	return fmt.Sprintf("%T %s", e.Object, e.Object.GetName())
}
