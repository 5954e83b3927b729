package fake

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

// A transcript is what happened, one line for each object that came, went, or changed
// its phase or its amounts. Names that the API server made up are replaced by numbers.
type transcript struct {
	lines []string
	last  map[string]string
	names map[string]string
}

func (t *transcript) add(o metav1.Object, gone bool) {
	name, state := t.describe(o)
	if gone {
		state = "gone"
	}
	if t.last == nil {
		t.last = map[string]string{}
	}
	if last, known := t.last[name]; known && last == state {
		return
	}
	t.last[name] = state
	t.lines = append(t.lines, name+": "+state)
}

func (t *transcript) describe(o metav1.Object) (name, state string) {
	switch o := o.(type) {
	case *corev1.ResourceQuota:
		return "quota", fmt.Sprintf("spec %s, hard %s, used %s", list(o.Spec.Hard), list(o.Status.Hard), list(o.Status.Used))
	case *corev1.Pod:
		if t.names == nil {
			t.names = map[string]string{}
		}
		if t.names[o.Name] == "" {
			t.names[o.Name] = "pod " + strconv.Itoa(len(t.names)+1)
			if o.Labels[kubevirtv1.MigrationJobLabel] != "" {
				t.names[o.Name] += ", a target"
			}
		}
		state := string(o.Status.Phase)
		if o.Spec.NodeName != "" {
			state += " on " + o.Spec.NodeName
		}
		if o.DeletionTimestamp != nil {
			state += ", being deleted"
		}
		return t.names[o.Name], state
	case *kubevirtv1.VirtualMachineInstance:
		state := string(o.Status.Phase) + " on " + o.Status.NodeName
		if s := o.Status.MigrationState; s != nil {
			state += fmt.Sprintf(", migrating %v, address %q, start %v, completed %v, failed %v, abort %v %s",
				s.MigrationUID != "", s.TargetNodeAddress, s.StartTimestamp != nil, s.Completed, s.Failed, s.AbortRequested, s.AbortStatus)
		}
		if o.DeletionTimestamp != nil {
			state += ", being deleted"
		}
		return "VMI " + o.Name, state
	case *kubevirtv1.VirtualMachineInstanceMigration:
		state := string(o.Status.Phase)
		for _, c := range o.Status.Conditions {
			state += fmt.Sprintf(", %s=%s", c.Type, c.Status)
		}
		if o.DeletionTimestamp != nil {
			state += ", being deleted"
		}
		return "VMIM " + o.Name, state
	default:
		return fmt.Sprintf("%T", o), ""
	}
}

func readRecording(t *testing.T, name string) []recording.Event {
	data, err := os.ReadFile(filepath.Join("..", "migration", "testdata", "recordings", name+".jsonl"))
	require.NoError(t, err)
	events, err := recording.Read(bytes.NewReader(data))
	require.NoError(t, err)
	return events
}

// recorded returns the transcript of a recording in the order of the API server, which
// the order of arrival is not.
func recorded(t *testing.T, name string) []string {
	events := readRecording(t, name)
	version := func(e recording.Event) int {
		v, err := strconv.Atoi(e.Object.GetResourceVersion())
		require.NoError(t, err)
		return v
	}
	slices.SortStableFunc(events, func(a, b recording.Event) int { return cmp.Compare(version(a), version(b)) })
	var told transcript
	for _, e := range events {
		told.add(e.Object, e.Type == watch.Deleted)
	}
	return told.lines
}

// steady are timings like those of the recordings, without chance.
func steady() *Timing {
	at := func(ms int) Span { d := time.Duration(ms) * time.Millisecond; return Span{d, d} }
	return &Timing{Call: at(4), Admission: at(1), Quota: at(3), Wake: at(6), Node: at(190), Copy: at(190), Linger: at(190)}
}

// a stage is a cluster on which a scenario of a recording is played again.
type stage struct {
	*testing.T
	*Cluster
	told transcript
}

func newStage(t *testing.T) *stage {
	s := &stage{T: t, Cluster: New(Config{Timing: steady(), Nodes: 2})}
	s.store.tell = append(s.store.tell, func(c change) {
		if c.kind != Namespaces && c.kind != Events { // which are not in the recordings
			s.told.add(c.object(), c.after == nil)
		}
	})
	require.NoError(t, s.CreateNamespace("n", nil))
	s.createQuota()
	s.Advance(20 * time.Millisecond)
	s.createVM()
	s.Advance(300 * time.Millisecond)
	return s
}

func (s *stage) createQuota() {
	require.NoError(s, createAs(s.Cluster, "admin", newQuota("n", "q", quantities("limits.cpu", "20", "limits.memory", "20Gi"))))
}

func (s *stage) createVM() {
	require.NoError(s, s.CreateVMI(NewVMI("n", "vm1", 1, gibi(1))))
	s.wait(func() bool { return s.VMI("n", "vm1").Status.Phase == kubevirtv1.Running })
}

func (s *stage) wait(done func() bool) {
	require.True(s, s.Until(time.Minute, done), "%s", strings.Join(s.told.lines, "\n"))
}

// alone waits until one pod is charged.
func (s *stage) alone() {
	s.wait(func() bool {
		used := s.Quota("n", "q").Status.Used["limits.cpu"]
		return used.Cmp(milli(1015)) == 0
	})
}

// full limits the quota to what is used, times n.
func (s *stage) full(n int) {
	require.NoError(s, s.EditQuota("n", "q", func(live corev1.ResourceList) { maps.Copy(live, room(n)) }))
	s.Advance(10 * time.Millisecond)
}

func (s *stage) migrate(name string, outcome Outcome) {
	require.NoError(s, s.Migrate("n", name, "vm1", outcome))
}

func (s *stage) refused(name string) {
	s.wait(func() bool { return refused(s.Migration("n", name)) })
}

func (s *stage) phase(name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	s.wait(func() bool { return s.Migration("n", name).Status.Phase == phase })
}

func (s *stage) gone(name string) { s.wait(func() bool { return s.Migration("n", name) == nil }) }

// scenarios are what happens in the recordings.
var scenarios = map[string]func(*stage){
	"basic": func(s *stage) {
		s.full(1)
		s.migrate("m1", Outcome{Linger: 3 * time.Second})
		s.refused("m1")
		s.Advance(2 * time.Second)
		s.full(2)
		s.phase("m1", kubevirtv1.MigrationSucceeded)
		s.alone()
	},
	"fail": func(s *stage) {
		s.full(1)
		s.full(2)
		s.migrate("f1", Outcome{Fail: true})
		s.phase("f1", kubevirtv1.MigrationFailed)
		s.alone()
	},
	"abort": func(s *stage) {
		s.full(1)
		s.migrate("a1", Outcome{})
		s.refused("a1")
		s.Advance(time.Second)
		require.NoError(s, s.Abort("n", "a1"))
		s.gone("a1")
		s.full(2)
		s.migrate("a2", Outcome{Hang: true})
		s.phase("a2", kubevirtv1.MigrationRunning)
		s.Advance(500 * time.Millisecond)
		require.NoError(s, s.Abort("n", "a2"))
		s.gone("a2")
		s.alone()
		s.Advance(time.Second)
		s.migrate("a3", Outcome{Hang: true})
		s.phase("a3", kubevirtv1.MigrationScheduling)
		s.Advance(10 * time.Millisecond)
		require.NoError(s, s.Abort("n", "a3"))
		s.gone("a3")
		s.alone()
	},
	"vmidelete": func(s *stage) {
		s.full(1)
		s.full(2)
		s.migrate("d1", Outcome{Hang: true})
		s.phase("d1", kubevirtv1.MigrationRunning)
		s.Advance(300 * time.Millisecond)
		require.NoError(s, s.DeleteVMI("n", "vm1"))
		s.gone("d1")
		s.Advance(2 * time.Second)
		s.createVM()
		s.full(1)
		s.migrate("d2", Outcome{})
		s.refused("d2")
		require.NoError(s, s.DeleteVMI("n", "vm1"))
		s.gone("d2")
	},
	"autolimits": func(s *stage) {
		s.full(1)
		require.NoError(s, s.DeleteVMI("n", "vm1"))
		require.NoError(s, s.remove("tenant", ResourceQuotas, "n", "q", metav1.DeleteOptions{}))
		s.wait(func() bool { return s.VMI("n", "vm1") == nil })
		s.Advance(300 * time.Millisecond)
		s.createVM()
		s.createQuota()
		s.Advance(10 * time.Millisecond)
		s.migrate("l1", Outcome{Hang: true})
		s.phase("l1", kubevirtv1.MigrationRunning)
	},
}

func TestRecordings(t *testing.T) {
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			play(s)
			require.Empty(t, gocmp.Diff(recorded(t, name), s.told.lines))
		})
	}
}
