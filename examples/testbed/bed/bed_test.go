package bed_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/quota"
)

var (
	whole     try.T // ends after all tests
	startOnce sync.Once
	started   *bed.Bed
)

// TestMain stops the bed that the tests share.
func TestMain(m *testing.M) {
	code := 1
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if err := try.Run(context.Background(), logf, func(t try.T) {
		whole = t
		code = m.Run()
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// shared returns a bed that all tests use, each in a namespace of its own.
func shared(t *testing.T) *bed.Bed {
	t.Helper()
	startOnce.Do(func() { started = bed.Start(whole, bed.Config{Log: os.Stderr, Step: 20 * time.Millisecond}) })
	require.NotNil(t, started)
	return started
}

func newStage(t *testing.T) *onbed.Stage {
	t.Helper()
	return onbed.NewStage(t, shared(t), "", nil)
}

// TestRefusedMigration is what the bed is for: a quota that is exactly full, a target
// pod that it refuses, a raise, and a migration that goes through.
func TestRefusedMigration(t *testing.T) {
	f := newStage(t).Fleet(t, "tenant", 1, onbed.FleetOptions{})
	f.Migrate(1, "")
	f.AwaitPhase("m0", scenario.Refused)
	require.Len(t, f.State().Pods, 1)
	rq := f.Quota(t)
	rq.Spec.Hard = f.Plus(1)
	try.Must(f.Client().CoreV1().ResourceQuotas(f.Namespace()).Update(t.Context(), rq, metav1.UpdateOptions{}))(t)
	f.Succeeded("m0")

	vmim := try.Must(f.VMIMs().Get(t.Context(), "m0"))(t)
	for _, condition := range vmim.Status.Conditions {
		require.False(t, condition.Type == kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota && condition.Status == corev1.ConditionTrue)
	}
	vmi := try.Must(f.VMIs().Get(t.Context(), "vm0"))(t)
	require.Equal(t, vmi.Status.MigrationState.TargetNode, vmi.Status.NodeName)
	require.NotEqual(t, vmi.Status.MigrationState.SourceNode, vmi.Status.NodeName)
	try.Eventually(t, func(c try.T) {
		refused, created := 0, 0
		for _, e := range f.With(c).Audit() {
			switch {
			case e.Resource != "pods" || e.Subresource != "" || e.Verb != "create":
				continue
			case e.Code == 403:
				require.Contains(c, e.Message, "exceeded quota: q")
				refused++
			default:
				created++
			}
			require.Equal(c, "system:serviceaccount:kubevirt:kubevirt-controller", e.User)
		}
		require.Equal(c, 2, created, "source and target")
		require.Positive(c, refused)
	})
	f.Await("the source does not count any more", func(s scenario.State) bool { return quota.Equal(s.Quotas[0].Status.Used, f.Regular) })
}

// TestKillAndRestart kills each component in the middle of a migration that hangs, and
// starts it again: nothing is lost, and the migration goes on.
func TestKillAndRestart(t *testing.T) {
	s := newStage(t)
	for _, component := range s.Bed.Components() {
		t.Run(string(component), func(t *testing.T) {
			f := s.Fleet(t, "tenant", 1, onbed.FleetOptions{Room: 2})
			f.Migrate(1, scenario.Hang)
			f.AwaitPhase("m0", string(kubevirtv1.MigrationRunning))
			before := s.Bed.PID(component)
			require.True(t, bed.Runs(before))
			s.Bed.Kill(t, component)
			require.False(t, bed.Runs(before))
			s.Bed.Restart(t, component)
			require.True(t, bed.Runs(s.Bed.PID(component)))
			require.NotEqual(t, before, s.Bed.PID(component))
			try.Eventually(t, func(c try.T) { f.With(c).Release("m0") })
			f.Succeeded("m0")
		})
	}
}

func TestNoSuchComponent(t *testing.T) {
	b := shared(t)
	require.Error(t, try.Run(t.Context(), t.Logf, func(t try.T) { b.Kill(t, "kubelet") }))
	require.Error(t, try.Run(t.Context(), t.Logf, func(t try.T) { b.Restart(t, "kubelet") }))
}

func TestUserHasOnlyTheRightsThatItsGroupsHave(t *testing.T) {
	b := shared(t)
	for name, config := range map[string]*rest.Config{
		`"somebody"`: b.User(t, "somebody", "some group"), "system:serviceaccount:default:default": b.ServiceAccount(t, "default", "default"),
	} {
		client := try.Must(kubernetes.NewForConfig(config))(t)
		_, err := client.CoreV1().ResourceQuotas("default").List(t.Context(), metav1.ListOptions{})
		require.True(t, apierrors.IsForbidden(err), "%v", err)
		require.ErrorContains(t, err, name)
	}
}

// TestDrainedNodeIsEvacuated lets the real virt-controller create the migrations.
func TestDrainedNodeIsEvacuated(t *testing.T) {
	f := newStage(t).Fleet(t, "tenant", 3, onbed.FleetOptions{Room: 6})
	f.Evacuate(f.State().VMIs[0].Status.NodeName)
}
