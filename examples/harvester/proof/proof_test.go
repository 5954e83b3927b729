package proof

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/harvester/old"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A target pod is refused, with the write lock in force. Then the program comes, and so does
// the target pod; and that of the next migration.
func TestRefusedMigration(t *testing.T) {
	s := newScene(t, true)
	s.CreateMigration(scenario.Migrate{Name: "first", VM: "vm0"})
	s.AwaitPhase("first", scenario.Refused)
	p := startProgram(t, asApplied)
	s.Succeeded("first")
	s.AwaitRest()
	s.CreateMigration(scenario.Migrate{Name: "second", VM: "vm0"})
	s.Succeeded("second")
	s.AwaitRest()
	require.Contains(t, s.writes(asApplied, p), onbed.Spelled(s.Plus(1)))
}

// A Harvester of today that scales by itself is beside the program. With the lock its writes
// fail, and without it raises spec.hard. The migrations succeed, and what is left is what it
// alone would have left: the annotation that says that spec.hard has followed.
func TestBesideAHarvesterThatScales(t *testing.T) {
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			s := newScene(t, locked)
			refused := make(chan bool, 1)
			s.scale(t.Context(), refused)
			account := fmt.Sprintf("beside-%v", locked)
			p := startProgram(t, account)
			for i := range 3 {
				name := fmt.Sprint("m", i)
				s.CreateMigration(scenario.Migrate{Name: name, VM: "vm0"})
				s.Succeeded(name)
			}
			if locked {
				s.AwaitRest()
				require.True(t, <-refused)
			} else {
				s.AwaitRest(old.Resync)
				require.Empty(t, refused)
			}
			s.writes(account, p)
		})
	}
}

// scale does what a Harvester of today does, until ctx is done or the test ends. Refused
// receives true when a write was refused.
func (s scene) scale(ctx context.Context, refused chan<- bool) {
	client := try.Must(kubernetes.NewForConfig(stage.Bed.User(s, "old-harvester", "system:masters")))(s)
	try.Go(s, func(try.T) {
		for ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
			vmis, first := s.VMIs().List(ctx)
			migrations, second := s.VMIMs().List(ctx)
			if first != nil || second != nil {
				continue
			}
			if err := old.Sync(ctx, client, s.Namespace(), vmis, migrations, s.Static); apierrors.IsForbidden(err) {
				select {
				case refused <- true:
				default:
				}
			}
		}
	})
}

// An old Harvester has leaked an entry, and left spec.hard raised. The program makes room
// on top of that, and cleaning in the middle of a migration leaves the static limits.
func TestCleanInMidFlight(t *testing.T) {
	s := newScene(t, false)
	try.Eventually(t, func(c try.T) { // it may have been written in between
		rq := s.Quota(c)
		rq.Annotations = map[string]string{old.Entry + "5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01": onbed.Spelled(s.Static), old.Resync: "false"}
		rq.Spec.Hard = s.Plus(1)
		try.Must(rancherClient.CoreV1().ResourceQuotas(s.Namespace()).Update(c.Context(), rq, metav1.UpdateOptions{}))(c)
	})
	s.Enforces(s.Plus(1))
	p := startProgram(t, "successor")
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Enforces(s.Plus(2))
	require.NoError(t, rancher.CleanNamespace(t.Context(), stage.Client.CoreV1(), s.Namespace()))
	s.Enforces(s.Plus(1))
	require.Equal(t, onbed.Spelled(s.Static), onbed.Spelled(s.Quota(t).Spec.Hard))
	s.AwaitPhase("m0", "Running")
	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()
	s.writes("successor", p)
}

const (
	system    = "harvester-system"   // the namespace of the service accounts
	asApplied = "harvester-headroom" // the service account of rbac.yaml
)

// What all tests share. The write lock of Rancher's webhook is installed.
var (
	stage         *onbed.Stage
	rancherClient kubernetes.Interface
)

func TestMain(m *testing.M) {
	onbed.Main(m, func(t try.T, s *onbed.Stage) {
		stage = s
		s.Build(t, "..", ".")
		s.Build(t, "../../controller", ".")
		s.Bed.Create(t, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: "+system+"}}"))
		rancherClient = try.Must(kubernetes.NewForConfig(s.Bed.User(t, bed.RancherUser, "system:masters")))(t)
		s.Bed.LockQuotas(t)
	})
}

// A scene is a namespace with a quota as Rancher makes it, which one VM fills exactly.
type scene struct{ *onbed.Fleet }

// newScene returns a scene in which the lock is in force or not.
func newScene(t *testing.T, locked bool) scene {
	t.Helper()
	return scene{stage.Fleet(t, "tenant", 1, onbed.FleetOptions{
		Owner: rancherClient,
		Quota: metav1.ObjectMeta{Name: "default-gn4d2", Labels: map[string]string{rancher.QuotaLabel: "true"}},
		Prepared: func(f *onbed.Fleet) {
			if !locked {
				f.PatchNamespace("labels", bed.UnlockedLabel, "true")
			}
			cpu, memory := f.Static[corev1.ResourceLimitsCPU], f.Static[corev1.ResourceLimitsMemory]
			f.PatchNamespace("annotations", rancher.LimitsAnnotation,
				fmt.Sprintf(`{"limit":{"limitsCpu":%q,"limitsMemory":%q}}`, cpu.String(), memory.String()))
		},
	})}
}

// startProgram starts the program, as a service account of that name with the rights of
// rbac.yaml, which is applied as it is but for the name of all that is in it.
func startProgram(t *testing.T, account string) *process.Process {
	t.Helper()
	file := try.Must(os.ReadFile("../rbac.yaml"))(t)
	said := try.Must(stage.Shell(t, ".", "kubectl apply -f - <<'END'\n"+strings.ReplaceAll(string(file), asApplied, account)+"\nEND"))(t)
	require.Equal(t, 3, strings.Count(said, " created\n"), said)
	return stage.StartAs(t, system, account, account, "harvester")
}

// writes returns the limits that the program of an account enforced, one after the other, and
// expects that it wrote nothing but the status of quotas, and had the right to all that it did.
func (s scene) writes(account string, p *process.Process) (limits []string) {
	s.Helper()
	user := "system:serviceaccount:" + system + ":" + account
	for _, e := range stage.Requests(s, user, p) {
		require.NotEqual(s, "configmaps", e.Resource)
	}
	for _, rq := range s.Versions() {
		if rq.Event.User == user {
			limits = append(limits, onbed.Spelled(rq.Status.Hard))
		}
	}
	s.Logf("%d writes", len(limits))
	return limits
}

// commands returns the commands of a section of beside.md.
func commands(t try.T, title string) (all []string) {
	t.Helper()
	page := try.Must(os.ReadFile("../beside.md"))(t)
	_, section, found := strings.Cut(string(page), "\n## "+title+"\n")
	require.True(t, found, title)
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if command, is := strings.CutPrefix(line, "$ "); is {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// types runs a command as an administrator types it, in the root of the tree.
func (s scene) types(command string) (string, error) {
	s.Helper()
	return stage.Shell(s, "../../..", strings.NewReplacer("TENANT", s.Namespace(), "NAME", "default-gn4d2").Replace(command))
}

// follows runs the commands of a section, which are that many.
func (s scene) follows(title string, n int) {
	s.Helper()
	all := commands(s, title)
	require.Len(s, all, n, title)
	for _, command := range all {
		said, err := s.types(command)
		require.NoError(s, err, said)
		require.NotContains(s, said, "No resources found")
	}
}

// The page for administrators, from its first command to its last, with an old Harvester that
// scales by itself: migrations succeed, and nothing is left.
func TestPage(t *testing.T) {
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			s := newScene(t, locked)
			probe := commands(t, "Is the lock in force?")
			require.Len(t, probe, 1)
			said, err := s.types(probe[0])
			require.Equal(t, locked, err != nil, said)
			require.Equal(t, locked, strings.Contains(said, "users are forbidden from changing resources managed by Rancher"), said)
			s.follows("With the lock", 0)
			if !locked {
				s.follows("Without the lock", 1)
			}
			refused := make(chan bool, 1)
			scaling, stop := context.WithCancel(t.Context())
			defer stop()
			s.scale(scaling, refused)
			s.CreateMigration(scenario.Migrate{Name: "first", VM: "vm0"})
			s.AwaitPhase("first", scenario.Refused)
			if locked {
				require.True(t, <-refused)
			}

			s.follows("Install", 2)
			// The bed runs no images: this is what the pods would run, with their account.
			p := stage.StartAs(t, "headroom", "headroom", "page", "controller",
				"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
			s.Succeeded("first")
			s.CreateMigration(scenario.Migrate{Name: "second", VM: "vm0", Goes: scenario.Hang})
			s.AwaitPhase("second", "Running")
			s.Enforces(s.Plus(1))
			s.follows("What you see", 2)

			require.NoError(t, p.Stop())
			stop()
			away := commands(t, "Take it away")
			require.Len(t, away, 2)
			if locked {
				away = away[:1]
			}
			for _, command := range away {
				said, err := s.types(command)
				require.NoError(t, err, said)
			}
			s.Release("second")
			s.Succeeded("second")
			s.AwaitRest()
		})
	}
}
