package main

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/migration"
)

// patience is for how long a test waits for what comes in milliseconds on an idle machine.
const patience = 2 * time.Minute

func testOptions(t *testing.T, args ...string) options {
	t.Helper()
	args = append([]string{"--namespace=headroom", "--metrics-bind-address=", "--health-probe-bind-address="}, args...)
	o, err := parseOptions(args, env("POD_NAME", t.Name()))
	require.NoError(t, err)
	return o
}

// start runs a replica. The function that it returns ends it as SIGTERM does, and waits.
func start(t *testing.T, w *world, o options) (c *controller, stop func() error) {
	t.Helper()
	c, err := newController(o, migration.Clients{Core: w.client, KubeVirt: w.kubeVirt}, w.client, newMetrics())
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, cancel) }()
	stop = func() error {
		cancel(nil)
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(patience):
			return errors.New("the replica does not end")
		}
	}
	t.Cleanup(func() { require.NoError(t, stop()) })
	return c, stop
}

func eventually(t *testing.T, holds func() bool, what string) {
	t.Helper()
	require.Eventually(t, holds, patience, 5*time.Millisecond, what)
}

// sum adds up the samples of a metric, only those with the label if one is given. Of a
// histogram it is the count.
func sum(t *testing.T, m *metrics, name string, label ...string) (total float64) {
	t.Helper()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, sample := range family.GetMetric() {
			matches := len(label) == 0 || slices.ContainsFunc(sample.GetLabel(), func(pair *dto.LabelPair) bool {
				return pair.GetName() == label[0] && pair.GetValue() == label[1]
			})
			if family.GetName() == name && matches {
				total += sample.GetCounter().GetValue() + sample.GetGauge().GetValue() + float64(sample.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

// memory is the enforced limit of the quota. The static one never changes.
func (w *world) memory(namespace string) string {
	rq := w.quota(namespace)
	static, enforced := rq.Spec.Hard["limits.memory"], rq.Status.Hard["limits.memory"]
	require.Equal(w.t, "2773714688", static.String())
	return enforced.String()
}

// reasons are those of the events about kind.
func (w *world) reasons(namespace, kind string) []string {
	events, err := w.client.CoreV1().Events(namespace).List(context.Background(), metav1.ListOptions{})
	require.NoError(w.t, err)
	var reasons []string
	for i := range events.Items {
		if events.Items[i].InvolvedObject.Kind == kind {
			reasons = append(reasons, events.Items[i].Reason)
		}
	}
	return reasons
}

// A recorded migration that quota refuses is rescued, and nothing is left of it. On the
// way a write conflicts, and KubeVirt has to be woken. All that is called is allowed by
// the manifests, and nothing else is.
func TestRescue(t *testing.T) {
	w := newWorld(t, "basic")
	conflicts := 1
	w.client.PrependReactor("update", "resourcequotas", func(clienttesting.Action) (bool, runtime.Object, error) {
		conflicts--
		if conflicts < 0 {
			return false, nil, nil
		}
		return true, nil, apierrors.NewConflict(corev1.Resource("resourcequotas"), "q", errors.New("it was changed"))
	})
	w.play(2 * time.Second)
	namespace := w.left[0].Object.GetNamespace()
	require.Equal(t, "2773714688", w.memory(namespace))
	c, stop := start(t, w, testOptions(t))

	eventually(t, func() bool { return w.memory(namespace) == "5547429376" }, "the quota is raised")
	eventually(t, func() bool {
		return slices.Contains(w.reasons(namespace, "ResourceQuota"), "HeadroomRaised") &&
			slices.Contains(w.reasons(namespace, "VirtualMachineInstanceMigration"), "HeadroomGranted")
	}, "it is told")
	require.NoError(t, c.limits.Synced())
	eventually(t, func() bool {
		return slices.Contains(w.reasons(namespace, "VirtualMachineInstanceMigration"), "Nudged")
	}, "KubeVirt is woken")
	require.Positive(t, sum(t, c.metrics, "headroom_nudges_total"))
	eventually(t, func() bool { return slices.Contains(w.called(), "patch /events") }, "it is woken again, which is told by counting the event")

	w.play(4 * time.Second)
	eventually(t, func() bool { return sum(t, c.metrics, "headroom_migrations", "state", "charged") == 1 }, "the target pod is seen")
	require.EqualValues(t, 1, sum(t, c.metrics, "headroom_migration_blocked_seconds"))
	eventually(t, func() bool { return w.memory(namespace) == "5547429376" }, "the quota is raised while it is charged")
	w.play(time.Minute)
	eventually(t, func() bool { return w.memory(namespace) == "2773714688" }, "the quota is restored")
	require.Empty(t, w.quota(namespace).Annotations)
	eventually(t, func() bool { return slices.Contains(w.reasons(namespace, "ResourceQuota"), "HeadroomRestored") }, "it is told")
	require.NoError(t, stop())
	requireAllowed(t, w.called())
}

// A shard leaves the namespaces of others alone.
func TestOtherShard(t *testing.T) {
	w := newWorld(t, "basic")
	w.play(2 * time.Second)
	namespace := w.left[0].Object.GetNamespace()
	mine := uint32(0)
	if !(shard{0, 2}).has(namespace) {
		mine = 1
	}
	index := []string{"--shard=0", "--shard=1"}
	other, _ := start(t, w, testOptions(t, "--shards=2", index[1-mine]))
	eventually(t, func() bool { return other.limits.Synced() == nil && sum(t, other.metrics, "headroom_leader") == 1 }, "the other shard works")
	start(t, w, testOptions(t, "--shards=2", index[mine]))
	eventually(t, func() bool { return w.memory(namespace) == "5547429376" }, "the quota is raised")
	require.Zero(t, sum(t, other.metrics, "headroom_resourcequota_writes_total"))
	leases, err := w.client.CoordinationV1().Leases("headroom").List(context.Background(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, leases.Items, 2)
}

// A replica that ends gives the Lease back after its last write, so that the other one
// takes over without waiting for it to run out. The Lease here would run out in an hour.
func TestHandOver(t *testing.T) {
	w := newWorld(t, "basic")
	lease := []string{"--leader-elect-lease-duration=1h", "--leader-elect-renew-deadline=30m", "--leader-elect-retry-period=20ms"}
	o := testOptions(t, lease...)
	o.identity = "first"
	first, stopFirst := start(t, w, o)
	eventually(t, func() bool { return sum(t, first.metrics, "headroom_leader") == 1 }, "the first leads")
	o.identity = "second"
	second, _ := start(t, w, o)
	eventually(t, func() bool { return second.limits.Synced() == nil }, "the second is ready")
	w.play(2 * time.Second)
	namespace := w.left[0].Object.GetNamespace()
	eventually(t, func() bool { return w.memory(namespace) == "5547429376" }, "the quota is raised")
	require.Zero(t, sum(t, second.metrics, "headroom_resourcequota_writes_total"))

	require.NoError(t, stopFirst())
	eventually(t, func() bool { return sum(t, second.metrics, "headroom_leader") == 1 }, "the second leads")
	require.Zero(t, sum(t, first.metrics, "headroom_leader"))
	eventually(t, func() bool {
		return sum(t, second.metrics, "headroom_resourcequota_writes_total", "action", "raised") > 0
	}, "the second makes offers")
	w.play(time.Minute)
	eventually(t, func() bool { return w.memory(namespace) == "2773714688" }, "the quota is restored")
}

// A leader whose caches are not up to date ends, and gives the Lease back.
func TestGiveUp(t *testing.T) {
	w := newWorld(t, "basic")
	o := testOptions(t, "--leader-elect-lease-duration=1h", "--leader-elect-renew-deadline=30m", "--leader-elect-retry-period=20ms")
	o.identity = "blind"
	blind, err := newController(o, migration.Clients{Core: w.client, KubeVirt: w.kubeVirt}, w.client, newMetrics())
	require.NoError(t, err)
	var isBlind atomic.Bool
	blind.synced = func() error {
		if isBlind.Load() {
			return errors.New("the cache of Events is not up to date")
		}
		return nil
	}
	ctx, failed := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- blind.run(ctx, failed) }()
	eventually(t, func() bool { return sum(t, blind.metrics, "headroom_leader") == 1 }, "the first leads")
	o.identity = "other"
	other, _ := start(t, w, o)
	eventually(t, func() bool { return other.limits.Synced() == nil }, "the second is ready")
	require.Zero(t, sum(t, other.metrics, "headroom_leader"))
	isBlind.Store(true)
	require.EqualError(t, <-ended, "no longer fit to lead: the cache of Events is not up to date")
	eventually(t, func() bool { return sum(t, other.metrics, "headroom_leader") == 1 }, "the second leads")
}

// Without KubeVirt's kinds the replica is not ready, and says why.
func TestNotReady(t *testing.T) {
	w := newWorld(t, "basic")
	c, err := newController(testOptions(t), migration.Clients{Core: w.client, KubeVirt: w.kubeVirt}, w.client, newMetrics())
	require.NoError(t, err)
	require.ErrorContains(t, c.limits.Synced(), "the cache of VirtualMachineInstanceMigrations has not synced")
}
