package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// adversary drains three nodes of a fleet, one after the other, while somebody sets status.hard
// back to spec.hard every 10 ms.
func adversary(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "adversary", o.VMs, onbed.FleetOptions{Linger: linger})
	library := s.StartProgram(t, process.Headroom, o.Log)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	resets, quotas := 0, s.Client.CoreV1().ResourceQuotas(f.Namespace())
	reset := try.Go(t, func(t try.T) {
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			rq, err := quotas.Get(t.Context(), onbed.FleetQuota, metav1.GetOptions{})
			if err == nil && !quota.Equal(rq.Status.Hard, rq.Spec.Hard) {
				rq.Status.Hard = rq.Spec.Hard.DeepCopy()
				if _, err = quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{}); err == nil {
					resets++
				}
			}
			if !apierrors.IsConflict(err) {
				require.NoError(t, err)
			}
		}
	})
	for i := range 3 {
		f.Evacuate(node(i))
	}
	stop()
	reset()
	f.AwaitRest()
	require.NoError(t, library.Stop())
	require.Positive(t, resets, "the adversary had nothing to reset")
	return fmt.Sprintf("3 nodes drained while status.hard was set back %d times, %d writes to the quota, none of them below static", resets, checkWrites(f))
}

// reader is a user with the rights of the library, but for the right to enforce limits.
const reader = "headroom-without-status"

// refusedFor is how long the library meets the refusal. It pauses for 0.5 s after the
// first one, and then twice as long each time.
const refusedFor = 12 * time.Second

// lock installs the write lock of Rancher 2.14.6 and 2.15.2, as a policy, on a quota that
// is full. A library without the right to update resourcequotas/status says so, and does
// not try again and again; one that has this right lets the same migration in.
func lock(t try.T, s *onbed.Stage, o Options) string {
	f := s.Fleet(t, "lock", 1, onbed.FleetOptions{Quota: metav1.ObjectMeta{Name: onbed.FleetQuota, Labels: map[string]string{rancher.QuotaLabel: "true"}}})
	s.Bed.LockQuotas(t)
	checkLock(t, f)
	tries := meetRefusals(t, s, f, o)
	library := s.StartProgram(t, process.Headroom, o.Log)
	f.Succeeded("m0")
	f.AwaitRest()
	require.NoError(t, library.Stop())
	return fmt.Sprintf("with the right to update resourcequotas/status: the migration of a locked quota's VM succeeds, %d writes; "+
		"without it: %d writes tried in %v and refused, told in the log and in an event", checkWrites(f), tries, refusedFor)
}

// checkLock checks that the API server enforces the policy, also against administrators:
// spec, annotations and labels are locked, status is open.
func checkLock(t try.T, f *onbed.Fleet) {
	patch := func(patch string, subresources ...string) error {
		_, err := f.Client().CoreV1().ResourceQuotas(f.Namespace()).Patch(t.Context(), onbed.FleetQuota, types.MergePatchType, []byte(patch),
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
		return err
	}
	err := patch(`{"metadata":{"annotations":{"trial":"true"}}}`)
	require.True(t, apierrors.IsForbidden(err), "the lock lets annotations be written: %v", err)
	err = patch(fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, rancher.QuotaLabel), "status")
	require.True(t, apierrors.IsForbidden(err), "the lock lets the label be removed through status: %v", err)
	require.NoError(t, patch(`{"status":{"hard":{"limits.cpu":"100"}}}`, "status"), "the lock does not leave status open")
}

// meetRefusals migrates the VM of a fleet while the library has no right to update status,
// and returns how often it tried to. It has to tell that, and not to try too often.
func meetRefusals(t try.T, s *onbed.Stage, f *onbed.Fleet, o Options) (tries int) {
	s.Grant(t, reader)
	library := s.Launch(t, process.Headroom, reader, reader, o.Log)
	require.NoError(t, library.AwaitReady(t.Context()))
	f.Migrate(1, "")
	try.Sleep(t, refusedFor)
	require.NoError(t, library.Stop())
	for _, e := range f.Audit() {
		if e.User == reader && e.Resource == "resourcequotas" {
			tries++
			require.EqualValues(t, 403, e.Code, "a write without the right to: %s", e.Message)
		}
	}
	require.Positive(t, tries)
	// At once, after 0.5, 1.5, 3.5 and 7.5 s, and once more for a change.
	require.LessOrEqual(t, tries, 6, "writes without the right to")
	require.Contains(t, library.Log(), "cannot update resource", "the log does not say what was refused")
	events := try.Must(s.Client.CoreV1().Events(f.Namespace()).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=HeadroomRefused"}))(t)
	require.Len(t, events.Items, 1)
	return tries
}

// gone kills the library with SIGKILL in the middle of a raise and never starts it again:
// once while a target pod is charged, once while a target pod has not come. Then
// kube-controller-manager makes status.hard spec.hard again, within the period of
// bed.Config.QuotaSync.
func gone(t try.T, s *onbed.Stage, o Options) string {
	s.Bed.Create(t, gatePolicy)
	var took []time.Duration
	for _, gated := range []bool{false, true} {
		f := s.Fleet(t, "gone", 1, onbed.FleetOptions{})
		setGate(t, f, gated)
		library := s.StartProgram(t, process.Headroom, o.Log)
		f.Migrate(1, scenario.Hang)
		f.Raised()
		if !gated {
			f.AwaitPhase("m0", "Running")
			f.Raised()
		}
		require.NoError(t, library.Kill())
		killed := time.Now()
		require.True(t, f.State().Raised(), "the limit is lowered already when the library is killed")
		f.Enforces(f.Static)
		took = append(took, time.Since(killed).Round(time.Millisecond))
		for name := range f.Quota(t).Annotations {
			require.False(t, strings.HasPrefix(name, "headroom."), "annotation %s is left", name)
		}
	}
	return fmt.Sprintf("status.hard was spec.hard %v after the library was killed with a target pod charged, "+
		"%v after it was killed with room offered; no annotation left", took[0], took[1])
}
