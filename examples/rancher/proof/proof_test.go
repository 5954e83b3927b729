package proof

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/ledger/rancher"
)

// The lock is in force: nobody but Rancher creates, changes or deletes a quota that it
// manages, and the status is open to everybody who leaves the label alone.
func TestTheLock(t *testing.T) {
	s := newScene(t, 1, nil)
	quotas, labelled := admin.CoreV1().ResourceQuotas(s.namespace), map[string]string{rancher.QuotaLabel: "true"}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	refused := func(err error) {
		t.Helper()
		require.True(t, apierrors.IsForbidden(err), "%v", err)
		require.ErrorContains(t, err, "users are forbidden from changing resources managed by Rancher")
	}
	update := func(client kubernetes.Interface, status bool, change func(rq *corev1.ResourceQuota)) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) { // kube-controller-manager writes it, too
			rq, quotas := s.quota(t), client.CoreV1().ResourceQuotas(s.namespace)
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
	refused(quotas.Delete(t.Context(), s.quota(t).Name, metav1.DeleteOptions{DryRun: dry.DryRun}))
	require.NoError(t, update(admin, true, annotate))
	refused(update(admin, true, relabel))

	asSudo := rest.CopyConfig(asRancher)
	asSudo.Impersonate = sudo
	client, err := kubernetes.NewForConfig(asSudo)
	require.NoError(t, err)
	require.NoError(t, update(client, false, annotate))
	s.finish()
}

// Rancher's writes of quotas are the same with headroom as without, to the request: what it
// sends is no function of the enforced limits.
func TestRancherWritesTheSame(t *testing.T) {
	schedule := func(headroom *rest.Config, vms func(s *scene), ended func(s *scene)) []request {
		s := newScene(t, 2, func(c *model.Config) { c.Headroom = headroom })
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
		s.migrate("m", "vm0", hang)
		s.await("m", kubevirtv1.MigrationRunning)
		s.enforces(s.plus(1))
	}, func(s *scene) {
		s.release("m")
		s.await("m", kubevirtv1.MigrationSucceeded)
		require.NotEmpty(t, s.requests(headroomUser))
	})
	full := `limits.cpu=2030m limits.memory=`
	require.Contains(t, fmt.Sprint(without), full)
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
		how := map[string]string{sim.LingerAnnotation: "2s"}
		if phase == kubevirtv1.MigrationRunning {
			how[sim.MigrationAnnotation] = sim.Hang
		}
		s.migrate(name, "vm0", how)
		s.eventually(func(c *assert.CollectT) {
			require.GreaterOrEqual(c, slices.Index(phases, s.phase(c, name)), i)
		})
		s.restart()
		if phase == kubevirtv1.MigrationRunning {
			s.release(name)
		}
		s.await(name, kubevirtv1.MigrationSucceeded)
		s.settled()
	}
	s.finish()
}

// Twelve VMs move at once, and the agent comes and goes all the while.
func TestRestartStormInADrainOfTwelve(t *testing.T) {
	const vms = 12
	s := newScene(t, vms, nil)
	for i := range vms {
		s.migrate(fmt.Sprint("m", i), fmt.Sprint("vm", i), nil)
	}
	restarts := 0
	for end := time.Now().Add(2 * eventually); time.Now().Before(end); restarts++ {
		s.restart()
		time.Sleep(500 * time.Millisecond)
		all, err := s.vmims.List(t.Context())
		require.NoError(t, err)
		if !slices.ContainsFunc(all, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
			return m.Status.Phase != kubevirtv1.MigrationSucceeded
		}) {
			break
		}
	}
	for i := range vms {
		s.await(fmt.Sprint("m", i), kubevirtv1.MigrationSucceeded)
	}
	t.Log(restarts, "restarts")
	s.finish()
}

// Rancher is 600 ms away, and its namespace is busy.
func TestRancherFarAway(t *testing.T) {
	s := newScene(t, 1, func(c *model.Config) { c.Latency = 600 * time.Millisecond })
	s.migrate("m", "vm0", hang)
	for i := 0; s.phase(t, "m") != kubevirtv1.MigrationRunning && i < 300; i++ {
		s.touch()
		time.Sleep(200 * time.Millisecond)
	}
	s.await("m", kubevirtv1.MigrationRunning)
	s.synced()
	s.restart()
	s.synced()
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// The limits change while a migration runs: more, below what is used, another key.
func TestAdminEdits(t *testing.T) {
	s := newScene(t, 2, nil)
	full := s.static
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	s.enforces(s.plus(1))

	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"]})
	s.enforces(s.plus(1))
	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"], "pods": "20"}) // the project's default gains a key
	s.enforces(s.plus(1))
	s.limit(model.Limit{"limitsCpu": "1", "limitsMemory": full["limitsMemory"]}) // below use
	s.synced()
	s.limit(full)
	s.enforces(s.plus(1))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// The quota is taken away and given back, while a migration is charged.
func TestQuotaRemovedAndGivenBack(t *testing.T) {
	s := newScene(t, 1, nil)
	full, id := s.static, "c-bed:"+s.namespace
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	projects.Set(id, model.Project{Limit: wide()})
	s.eventually(func(c *assert.CollectT) {
		list, err := admin.CoreV1().ResourceQuotas(s.namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(c, err)
		require.Empty(c, list.Items)
	})
	s.limit(full)
	s.enforces(s.plus(1))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// The namespace moves to a project with other limits.
func TestNamespaceMoved(t *testing.T) {
	s := newScene(t, 1, nil)
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	other := "c-bed:other-" + s.namespace
	s.declare(model.Limit{"limitsCpu": "7", "limitsMemory": "9Gi"})
	projects.Set(other, model.Project{Limit: wide(), Default: s.static})
	s.unask()
	s.join(other)
	s.unask()
	s.enforces(s.plus(1))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// An old Rancher, without the lock and 600 ms away, and headroom in another process: neither
// undoes what the other writes.
func TestOldRancher(t *testing.T) {
	s := newScene(t, 1, func(c *model.Config) {
		c.Headroom, c.WriteAs, c.Latency = nil, rest.ImpersonationConfig{}, 600*time.Millisecond
	})
	client, err := kubernetes.NewForConfig(asHeadroom)
	require.NoError(t, err)
	shim, err := rancher.Start(t.Context(), rancher.Config{Client: client, Now: time.Now})
	require.NoError(t, err)
	t.Cleanup(shim.Stop)
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	s.synced()
	before := len(s.carriedOut(rancherUser))
	for range 3 {
		s.touch()
		s.restart()
		s.synced()
		s.enforces(s.plus(1))
	}
	require.Len(t, s.carriedOut(rancherUser), before, "Rancher has nothing to write")
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// Nobody keeps a ledger: the shim enforces the cluster's own migrations, also after the agent
// was lost in the middle of one.
func TestOwnMigrations(t *testing.T) {
	s := newScene(t, 2, func(c *model.Config) { c.Headroom, c.Own = asRancher, true })
	s.migrate("m0", "vm0", hang)
	s.await("m0", kubevirtv1.MigrationRunning)
	s.enforces(s.plus(1))
	s.restart()
	s.migrate("m1", "vm1", nil)
	s.await("m1", kubevirtv1.MigrationSucceeded)
	s.release("m0")
	s.await("m0", kubevirtv1.MigrationSucceeded)
	s.finish()
	require.Empty(t, s.requests(headroomUser))
}

// Switched off while a migration runs, nothing is written any more, and the end of the
// migration leaves static limits all the same. Switched on, the next one gets room.
func TestSwitchedOffAndOn(t *testing.T) {
	var off atomic.Bool
	s := newScene(t, 1, func(c *model.Config) { c.Disabled = off.Load })
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	s.enforces(s.plus(1))
	off.Store(true)
	s.restart()
	s.synced()
	writes := len(s.requests(headroomUser))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.settled()
	require.Len(t, s.requests(headroomUser), writes)
	off.Store(false)
	s.migrate("next", "vm0", nil)
	s.await("next", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// Two replicas work at the same time, and one of them comes and goes.
func TestTwoReplicas(t *testing.T) {
	s := newScene(t, 3, nil)
	second, err := model.Start(s.config)
	require.NoError(t, err)
	t.Cleanup(second.Stop)
	for i := range 3 {
		s.migrate(fmt.Sprint("m", i), fmt.Sprint("vm", i), nil)
	}
	for range 3 {
		s.touch()
		s.restart()
	}
	for i := range 3 {
		s.await(fmt.Sprint("m", i), kubevirtv1.MigrationSucceeded)
	}
	s.finish()
}
