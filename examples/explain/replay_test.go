package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

func limits(amounts ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, a := range amounts {
		name, value, _ := strings.Cut(a, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return list
}

// TestStaticOfARecording edits the quota of a recording in which a migration is
// blocked.
func TestStaticOfARecording(t *testing.T) {
	events, err := recording.Read(strings.NewReader(read(t, recordings+"basic.jsonl")))
	require.NoError(t, err)
	r := newReplay()
	namespace := events[0].Object.GetNamespace()
	for _, e := range events {
		if e.At <= 1300*time.Millisecond {
			r.apply(e)
		}
	}
	edit := func(hard ...string) corev1.ResourceList {
		rq := r.cache.Quotas(namespace)[0].DeepCopy()
		rq.Spec.Hard = limits(hard...)
		r.apply(recording.Event{At: 2 * time.Second, Type: watch.Modified, Object: rq})
		return r.tenant(namespace).static["q"]
	}
	same := func(want, got corev1.ResourceList) {
		t.Helper()
		require.True(t, sameLimits(want, got), "want %v, got %v", want, got)
	}

	same(limits("limits.cpu=3", "limits.memory=8Gi"), edit("limits.cpu=3", "limits.memory=8Gi")) // nothing is in flight
	require.Empty(t, r.notes(namespace))
	for _, e := range events {
		if e.At > 1300*time.Millisecond && e.At < 2*time.Second {
			r.apply(e)
		}
	}
	same(limits("limits.cpu=3", "limits.memory=8Gi"), edit("limits.cpu=4", "limits.memory=10Gi")) // raised
	require.Equal(t, []string{"spec.hard of " + namespace + "/q was raised at 2s, while a migration was in flight: " +
		"STATIC is what it was before."}, r.notes(namespace))
	same(limits("limits.cpu=2", "limits.memory=8Gi"), edit("limits.cpu=2", "limits.memory=10Gi")) // the tenant has less
	same(limits("limits.cpu=2", "limits.memory=8Gi"), edit("limits.cpu=3", "limits.memory=8Gi"))  // half of it back
	same(limits("limits.cpu=2", "pods=5"), edit("limits.cpu=2", "pods=5"))                        // another key
	require.Empty(t, r.notes(namespace))
	r.apply(recording.Event{Type: watch.Deleted, Object: r.cache.Quotas(namespace)[0]})
	require.Empty(t, r.tenant(namespace).static)
}

// TestMomentIsInclusive: what happened at the moment has happened.
func TestMomentIsInclusive(t *testing.T) {
	require.Contains(t, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "1.36").stdout, "m1 of VM vm1: blocked, granted")
	require.Contains(t, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "1.359").stdout, "m1 of VM vm1: queued\n")
	require.Equal(t, exitOK, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "7.482").code)
}

// TestRoomIsThere: what a charged migration holds is in the usage already, so the
// blocked one needs no more than its own.
func TestRoomIsThere(t *testing.T) {
	quotas := read(t, "testdata/drain/quotas.yaml")
	rest := []string{"-f", "testdata/drain/pods.yaml", "-f", "testdata/drain/vmis.yaml", "-f", "testdata/drain/vmims.json", "-f", "-"}
	budget := []string{"--budget", "limits.memory=6Gi"}
	raised := strings.NewReplacer(
		"      limits.cpu: 6090m\n      limits.memory: '16642288128'\n      pods: '20'",
		"      limits.cpu: 7105m\n      limits.memory: '19416002816'\n      pods: '20'",
	).Replace(quotas)
	require.NotEqual(t, quotas, raised)
	got := body(explainWith(t, raised, append(rest, budget...)...).stdout)
	require.Contains(t, got, "Now there is room, and KubeVirt's next try lets it in.")
	require.NotContains(t, body(explainWith(t, quotas, append(rest, budget...)...).stdout), "Now there is room")
}

func TestHeld(t *testing.T) {
	surge, part := limits("pods=2"), limits("pods=1")
	require.Nil(t, held(quota.Migration{State: quota.Blocked, Surge: surge, Held: part}))
	require.Equal(t, surge, held(quota.Migration{State: quota.Charged, Surge: surge}))
	require.Equal(t, part, held(quota.Migration{State: quota.Charged, Surge: surge, Held: part}))
}

// TestPodsOfAMigration passes over the terminal pods that earlier migrations left.
func TestPodsOfAMigration(t *testing.T) {
	pod := func(name, job string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{
				kubevirtv1.AppLabel: "virt-launcher", kubevirtv1.CreatedByLabel: "vmi", kubevirtv1.MigrationJobLabel: job,
			}},
			Status: corev1.PodStatus{Phase: phase},
		}
	}
	c := newCast(tenant{snapshot: migration.Snapshot{Pods: []*corev1.Pod{
		pod("a", "", corev1.PodSucceeded), pod("b", "second", corev1.PodFailed),
		pod("c", "first", corev1.PodRunning), pod("d", "second", corev1.PodPending),
	}}}, nil)
	require.Equal(t, "d", c.target("second").Name)
	require.Equal(t, "c", c.source(c.target("second")).Name)
	require.Nil(t, c.target("third"))
}

func TestObjectsWithoutNamespace(t *testing.T) {
	bare := strings.Replace(goodQuota, ", namespace: tenant", "", 1)
	require.Contains(t, explainWith(t, bare, "-f", "-").stdout, "NAMESPACE default\n")
	require.Contains(t, explainWith(t, bare, "-f", "-", "-n", "mine").stdout, "NAMESPACE mine\n")
}

// TestObjectsWithoutUID are two migrations, not the same one twice.
func TestObjectsWithoutUID(t *testing.T) {
	vmi := "---\napiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: NAME, namespace: tenant, uid: NAME}\n" +
		"spec: {domain: {devices: {}, resources: {limits: {memory: 1Gi}}}}\n"
	bare := strings.Replace(pendingMigration, ", uid: u1", "", 1)
	input := goodQuota + strings.ReplaceAll(vmi, "NAME", "vm1") + strings.ReplaceAll(vmi, "NAME", "vm2") +
		"---\n" + bare + "---\n" + strings.NewReplacer("m1", "m2", "vm1", "vm2").Replace(bare)
	got := explainWith(t, input, "-f", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stdout, "Migration m1 of VM vm1: queued")
	require.Contains(t, got.stdout, "Migration m2 of VM vm2: queued")
	require.Contains(t, got.stdout, "There are no Pods in the input")
}

// TestLongRecording is looked at less often than it has events, and still drawn.
func TestLongRecording(t *testing.T) {
	events, err := recording.Read(strings.NewReader(read(t, recordings+"basic.jsonl")))
	require.NoError(t, err)
	require.Zero(t, namedRecording{events: events}.pause())
	long := namedRecording{name: "long.jsonl"}
	for len(long.events) <= exactEvents {
		long.events = append(long.events, events[0])
	}
	long.events = append(long.events, events...)
	require.Equal(t, 3741*time.Microsecond, long.pause())
	in := &input{recordings: []namedRecording{long}, names: []string{"long.jsonl"}}
	tl, err := newTimeline(in, options{}, &progress{})
	require.NoError(t, err)
	require.Contains(t, string(newPicture(tl).draw()), "1 migration, refused by quota and let in 2.03 s later")
}
