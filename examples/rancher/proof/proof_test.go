package proof

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
)

// The lock is in force: nobody but Rancher creates, changes or deletes a quota that it
// manages, and the status is open to everybody who leaves the label alone.
func TestTheLock(t *testing.T) {
	s := newScene(t, 1, nil)
	quotas, labelled := admin.CoreV1().ResourceQuotas(s.Namespace()), map[string]string{rancher.QuotaLabel: "true"}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	refused := func(err error) {
		t.Helper()
		require.True(t, apierrors.IsForbidden(err), "%v", err)
		require.ErrorContains(t, err, "users are forbidden from changing resources managed by Rancher")
	}
	update := func(client kubernetes.Interface, status bool, change func(rq *corev1.ResourceQuota)) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) { // kube-controller-manager writes it, too
			rq, quotas := s.Quota(t), client.CoreV1().ResourceQuotas(s.Namespace())
			change(rq)
			if status {
				_, err = quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{DryRun: dry.DryRun})
			} else {
				_, err = quotas.Update(t.Context(), rq, metav1.UpdateOptions{DryRun: dry.DryRun})
			}
			return err
		})
	}
	annotate := func(rq *corev1.ResourceQuota) { metav1.SetMetaDataAnnotation(&rq.ObjectMeta, "a", "b") }
	relabel := func(rq *corev1.ResourceQuota) { rq.Labels[rancher.QuotaLabel] = "false" }

	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: labelled}}, dry)
	refused(err)
	_, err = quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, dry)
	require.NoError(t, err, "a quota of somebody else")
	refused(update(admin, false, annotate))
	refused(update(admin, false, relabel))
	refused(quotas.Delete(t.Context(), s.Quota(t).Name, metav1.DeleteOptions{DryRun: dry.DryRun}))
	require.NoError(t, update(admin, true, annotate))
	refused(update(admin, true, relabel))

	asSudo := rest.CopyConfig(asRancher)
	asSudo.Impersonate = sudo
	client := try.Must(kubernetes.NewForConfig(asSudo))(t)
	require.NoError(t, update(client, false, annotate))
	s.finish()
}

// Rancher's writes of quotas are the same with headroom as without, to the request: what it
// sends is no function of the enforced limits.
func TestRancherWritesTheSame(t *testing.T) {
	schedule := func(headroom *rest.Config, vms func(s *scene), ended func(s *scene)) []request {
		s := newScene(t, 2, func(c *agentConfig) { c.Headroom = headroom })
		full := s.static
		s.synced()
		before := len(s.carriedOut(rancherUser))
		vms(s)
		for range 3 {
			s.synced()
			s.restart()
			s.synced()
		}
		for _, cores := range []string{"10", "1", "7"} {
			s.limit(model.Limit{"limitsCpu": cores, "limitsMemory": full["limitsMemory"]})
			s.synced()
		}
		s.restart()
		s.synced()
		ended(s)
		s.limit(full)
		s.synced()
		s.finish()
		s.agent.Stop() // so that it does not see the next namespace
		return s.carriedOut(rancherUser)[before:]
	}
	nothing := func(*scene) {}
	without := schedule(nil, nothing, nothing)
	require.NotEmpty(t, without)
	with := schedule(asHeadroom, func(s *scene) {
		s.hang()
		s.Enforces(s.Plus(1))
	}, func(s *scene) {
		s.release()
		require.NotEmpty(t, s.requests(headroomUser))
	})
	require.Contains(t, fmt.Sprint(without), `{"limits.cpu":"2030m","limits.memory":`)
	// How often a condition of the namespace is written again, because its time has changed, is
	// left to chance.
	ofNamespaces := func(r request) bool { return r.call == "update namespaces" }
	require.Equal(t, slices.DeleteFunc(without, ofNamespaces), slices.DeleteFunc(with, ofNamespaces))
}

// The agent is lost, and comes back, in every phase of a migration.
func TestAgentRestartInEveryPhase(t *testing.T) {
	s := newScene(t, 1, nil)
	phases := []kubevirtv1.VirtualMachineInstanceMigrationPhase{
		kubevirtv1.MigrationPending, kubevirtv1.MigrationScheduling, kubevirtv1.MigrationScheduled, kubevirtv1.MigrationPreparingTarget,
		kubevirtv1.MigrationTargetReady, kubevirtv1.MigrationRunning, kubevirtv1.MigrationSucceeded,
	}
	for i, phase := range phases {
		name := fmt.Sprint("m", i)
		m := scenario.Migrate{Name: name, VM: "vm0", Linger: "2s"}
		if phase == kubevirtv1.MigrationRunning {
			m.Goes = scenario.Hang
		}
		s.CreateMigration(m)
		try.Eventually(t, func(c try.T) {
			m := try.Must(s.VMIMs().Get(c.Context(), name))(c)
			require.GreaterOrEqual(c, slices.Index(phases, m.Status.Phase), i)
		})
		s.restart()
		if phase == kubevirtv1.MigrationRunning {
			s.Release(name)
		}
		s.Succeeded(name)
		s.AwaitRest()
	}
	s.finish()
}

// Twelve VMs move at once, and the agent comes and goes all the while.
func TestRestartStormInADrainOfTwelve(t *testing.T) {
	const vms = 12
	s := newScene(t, vms, nil)
	migrations := s.Migrate(vms, "")
	restarts := 0
	for end := time.Now().Add(2 * try.Patience); time.Now().Before(end); restarts++ {
		s.restart()
		time.Sleep(500 * time.Millisecond)
		if onbed.AllOver(s.State()) {
			break
		}
	}
	s.Succeeded(migrations...)
	t.Log(restarts, "restarts")
	s.finish()
}

// Rancher is 600 ms away, and its namespace is busy.
func TestRancherFarAway(t *testing.T) {
	s := newScene(t, 1, func(c *agentConfig) { c.Latency = 600 * time.Millisecond })
	s.Migrate(1, scenario.Hang)
	for i := 0; !s.State().Is("m0", "Running") && i < 300; i++ {
		s.touch()
		time.Sleep(200 * time.Millisecond)
	}
	s.AwaitPhase("m0", "Running")
	s.synced()
	s.restart()
	s.synced()
	s.release()
	s.finish()
}

// The limits change while a migration runs: more, below what is used, another key.
func TestAdminEdits(t *testing.T) {
	s := newScene(t, 2, nil)
	full := s.static
	s.hang()
	s.Enforces(s.Plus(1))

	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"]})
	s.Enforces(s.Plus(1))
	// The project's default gains a key.
	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"], "pods": "20"})
	s.Enforces(s.Plus(1))
	s.limit(model.Limit{"limitsCpu": "1", "limitsMemory": full["limitsMemory"]}) // below use
	s.synced()
	s.limit(full)
	s.Enforces(s.Plus(1))
	s.release()
	s.finish()
}

// The quota is taken away and given back, while a migration is charged.
func TestQuotaRemovedAndGivenBack(t *testing.T) {
	s := newScene(t, 1, nil)
	full, id := s.static, "c-bed:"+s.Namespace()
	s.hang()
	projects.Set(id, model.Project{Limit: wide()})
	s.Await("the quota is gone", func(now scenario.State) bool { return len(now.Quotas) == 0 })
	s.limit(full)
	s.Enforces(s.Plus(1))
	s.release()
	s.finish()
}

// The namespace moves to a project with other limits.
func TestNamespaceMoved(t *testing.T) {
	s := newScene(t, 1, nil)
	s.hang()
	other := "c-bed:other-" + s.Namespace()
	s.declare(model.Limit{"limitsCpu": "7", "limitsMemory": "9Gi"})
	projects.Set(other, model.Project{Limit: wide(), Default: s.static})
	s.unask()
	s.join(other)
	s.unask()
	s.Enforces(s.Plus(1))
	s.release()
	s.finish()
}

// An old Rancher, without the lock and 600 ms away, and headroom in another process: neither
// undoes what the other writes.
func TestOldRancher(t *testing.T) {
	s := newScene(t, 1, func(c *agentConfig) {
		c.Headroom, c.WriteAs, c.Latency = nil, rest.ImpersonationConfig{}, 600*time.Millisecond
	})
	client := try.Must(kubernetes.NewForConfig(asHeadroom))(t)
	shim := try.Must(rancher.Start(t.Context(), rancher.Config{Client: client, Now: time.Now}))(t)
	t.Cleanup(shim.Stop)
	s.hang()
	s.synced()
	before := len(s.carriedOut(rancherUser))
	for range 3 {
		s.touch()
		s.restart()
		s.synced()
		s.Enforces(s.Plus(1))
	}
	require.Len(t, s.carriedOut(rancherUser), before, "Rancher has nothing to write")
	s.release()
	s.finish()
}

// Nobody keeps a ledger: the shim enforces the cluster's own migrations, also after the agent
// was lost in the middle of one.
func TestOwnMigrations(t *testing.T) {
	s := newScene(t, 2, func(c *agentConfig) { c.Headroom, c.Own = asRancher, true })
	s.hang()
	s.Enforces(s.Plus(1))
	s.restart()
	s.CreateMigration(scenario.Migrate{Name: "m1", VM: "vm1"})
	s.Succeeded("m1")
	s.release()
	s.finish()
	require.Empty(t, s.requests(headroomUser))
}

// Switched off while a migration runs, nothing is written any more, and the end of the
// migration leaves static limits all the same. Switched on, the next one gets room.
func TestSwitchedOffAndOn(t *testing.T) {
	var off atomic.Bool
	s := newScene(t, 1, func(c *agentConfig) { c.Disabled = off.Load })
	s.hang()
	s.Enforces(s.Plus(1))
	off.Store(true)
	s.restart()
	s.synced()
	writes := len(s.requests(headroomUser))
	s.release()
	s.AwaitRest()
	require.Len(t, s.requests(headroomUser), writes)
	off.Store(false)
	s.CreateMigration(scenario.Migrate{Name: "next", VM: "vm0"})
	s.Succeeded("next")
	s.finish()
}

// Two replicas work at the same time, and one of them comes and goes.
func TestTwoReplicas(t *testing.T) {
	s := newScene(t, 3, nil)
	second := try.Must(startAgent(s.config))(t)
	t.Cleanup(second.Stop)
	migrations := s.Migrate(3, "")
	for range 3 {
		s.touch()
		s.restart()
	}
	s.Succeeded(migrations...)
	s.finish()
}
