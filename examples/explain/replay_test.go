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

// TestMomentIsInclusive: what happened at the moment has happened.
func TestMomentIsInclusive(t *testing.T) {
	require.Contains(t, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "1.36").stdout, "m1 of VM vm1: blocked, granted")
	require.Contains(t, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "1.359").stdout, "m1 of VM vm1: queued, granted\n")
	require.Equal(t, exitOK, explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "7.482").code)
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
