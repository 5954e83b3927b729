package fake

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

func TestRefusalIsToldInAnEvent(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 0)
	p := c.Start("us", func(*Process) Program { return Program{} })
	c.processes[0].queue.stop() // it only listens
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(100 * ms)

	events := c.Snapshot("n").Events
	require.NotEmpty(t, events)
	e, vmi := events[0], c.VMI("n", "vm0")
	require.Equal(t, "FailedCreate", e.Reason)
	require.Equal(t, corev1.EventTypeWarning, e.Type)
	require.Equal(t, "VirtualMachineInstance", e.InvolvedObject.Kind)
	require.Equal(t, "kubevirt.io/v1", e.InvolvedObject.APIVersion)
	require.Equal(t, vmi.UID, e.InvolvedObject.UID)
	require.Equal(t, "vm0", e.InvolvedObject.Name)
	require.Regexp(t, `^Error creating pod: pods "virt-launcher-vm0-....." is forbidden: exceeded quota: n, `+
		`requested: limits.cpu=1015m,limits.memory=2773714688, used: limits.cpu=1015m,limits.memory=2773714688, `+
		`limited: limits.cpu=1015m,limits.memory=2773714688$`, e.Message)
	require.Equal(t, e.LastTimestamp.Truncate(time.Second), e.LastTimestamp.Time)
	require.Equal(t, "n", migration.NamespaceOf(e))
	require.Contains(t, strings.Join(c.History(), "\n"), "virt-controller creates events n/"+e.Name+": FailedCreate")
	require.ElementsMatch(t, events, p.Caches.Snapshot("n").Events)
}

// As client-go writes them: similar ones as one, and not too many of them.
func TestEventsAreAggregatedAndFiltered(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	vmi := c.VMI("n", "vm0")
	refuse := func(n int) {
		c.virt.recorder.failedCreate(vmi, "Error creating pod: %v", fmt.Errorf("try %d", n))
		c.Advance(time.Second)
	}
	for n := 1; n <= 9; n++ {
		refuse(n)
	}
	require.Len(t, c.Snapshot("n").Events, 9)
	for n := 10; n <= 25; n++ {
		refuse(n)
	}
	combined := func() *corev1.Event {
		events := c.Snapshot("n").Events
		require.Len(t, events, 10)
		return events[9]
	}
	require.Equal(t, "(combined from similar events): Error creating pod: try 25", combined().Message)
	require.Equal(t, int32(16), combined().Count)
	require.Equal(t, c.Now().Add(-time.Second).Truncate(time.Second), combined().LastTimestamp.UTC())
	refuse(26)
	require.Contains(t, combined().Message, "try 25")
	c.Advance(5 * time.Minute)
	refuse(27)
	require.Contains(t, combined().Message, "try 27", "one in five minutes")
}

func TestEventsAreForgotten(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	refuse := func() {
		c.virt.recorder.failedCreate(c.VMI("n", "vm0"), "%v", errNotRunning)
		c.Advance(time.Second)
	}
	refuse()
	c.Advance(50 * time.Minute)
	refuse()
	c.Advance(50 * time.Minute)
	require.Equal(t, int32(2), c.Snapshot("n").Events[0].Count, "it happened again meanwhile")
	c.Advance(10 * time.Minute)
	require.Empty(t, c.Snapshot("n").Events)
	refuse()
	require.Len(t, c.Snapshot("n").Events, 1)
}

// Which creations fail is told apart by the words.
func TestEventsOfOtherPods(t *testing.T) {
	t.Run("the first pod of a VMI", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		require.NoError(t, c.CreateVMI(NewVMI("n", "other", 1, gibi(1))))
		c.Advance(time.Second)
		require.Contains(t, c.Snapshot("n").Events[0].Message, `Error creating pod: pods "virt-launcher-other-`)
	})
	t.Run("an attachment pod", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		write(c, "admin", c.VMI("n", "vm0"), func(vmi *kubevirtv1.VirtualMachineInstance) { vmi.Spec.Volumes = hotplugged().Spec.Volumes })
		c.Advance(time.Second)
		require.Contains(t, c.Snapshot("n").Events[0].Message, `Error creating attachment pod: pods "hp-volume-`)
	})
}
