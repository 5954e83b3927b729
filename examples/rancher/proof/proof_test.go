package proof

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/sim"
)

// The lock is in force: what is raised below, Rancher's process has raised.
func TestNobodyElseMayWrite(t *testing.T) {
	s := newScene(t, 1, nil)
	_, err := admin.CoreV1().ResourceQuotas(s.namespace).Patch(t.Context(), s.quota(t).Name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	require.ErrorContains(t, err, "users are forbidden from changing resources managed by Rancher")
	s.finish()
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
	s.looked()
	s.restart()
	s.looked()
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
	s.hard(s.plus(1))

	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"]})
	s.hard(s.plus(1))
	s.limit(model.Limit{"limitsCpu": "10", "limitsMemory": full["limitsMemory"], "pods": "20"}) // the project's default gains a key
	s.hard(s.plus(1))
	s.limit(model.Limit{"limitsCpu": "1", "limitsMemory": full["limitsMemory"]}) // below use
	s.eventually(func(c *assert.CollectT) {
		limit, used := s.quota(c).Spec.Hard[cpu], s.quota(c).Status.Used[cpu]
		require.Zero(c, limit.Cmp(used))
	})
	s.limit(full)
	s.hard(s.plus(1))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// The quota is taken away and given back: it is raised as it is created.
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
	require.Equal(t, s.plus(1), text(s.quota(t).Spec.Hard))
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
	s.static = model.Limit{"limitsCpu": "7", "limitsMemory": "9Gi"}
	projects.Set(other, model.Project{Limit: wide(), Default: s.static})
	s.unask()
	s.join(other)
	s.unask()
	s.hard(s.plus(1))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.finish()
}

// A Rancher from before the lock and without the shim resets each raise, and an applier of
// ours raises again. They come to terms, and no limit is ever below static.
func TestOldRancherBesideOurApplier(t *testing.T) {
	s := newScene(t, 1, func(c *model.Config) { c.Shim, c.Latency = false, 600*time.Millisecond })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- applierOf(ctx, s.namespace) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-done)
	})
	static := s.quota(t).Spec.Hard[cpu]
	resets := func() (n int) {
		for _, limit := range s.limits(cpu)[1:] {
			if limit == static.String() {
				n++
			}
		}
		return n
	}
	s.migrate("m", "vm0", hang)
	s.hard(s.plus(1))
	s.await("m", kubevirtv1.MigrationRunning)
	for i := range 3 {
		s.touch()
		s.eventually(func(c *assert.CollectT) { require.Greater(c, resets(), i) })
		s.hard(s.plus(1))
	}
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.settled()
	for _, e := range s.ordered() {
		if e.quota != nil && !e.deleted {
			limit := e.quota.Spec.Hard[cpu]
			require.GreaterOrEqual(t, limit.Cmp(static), 0)
		}
	}
	t.Log("limits.cpu was", s.limits(cpu))
}

// Switched off while a migration runs, the next sync brings the static limits back.
// Switched on, the raise is back.
func TestSwitchedOffAndOn(t *testing.T) {
	var off atomic.Bool
	s := newScene(t, 1, func(c *model.Config) { c.Off = off.Load })
	s.migrate("m", "vm0", hang)
	s.await("m", kubevirtv1.MigrationRunning)
	s.hard(s.plus(1))
	off.Store(true)
	s.restart()
	s.eventually(func(c *assert.CollectT) {
		require.Equal(c, s.wanted(), text(s.quota(c).Spec.Hard))
		require.Empty(c, s.quota(c).Annotations)
	})
	off.Store(false)
	s.restart()
	s.hard(s.plus(1))
	s.looked()
	require.Equal(t, s.plus(1), text(s.quota(t).Spec.Hard))
	s.release("m")
	s.await("m", kubevirtv1.MigrationSucceeded)
	s.settled()
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
	require.Empty(t, s.quota(t).Annotations)
}
