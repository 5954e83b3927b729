package fake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger/rancher"
)

// managed returns a cluster with a Rancher that has given namespace n its limits, and
// the name of the quota.
func managed(t *testing.T, config RancherConfig, hard corev1.ResourceList) (c *Cluster, r *Rancher, name string) {
	c = New(Config{})
	r = c.StartRancher(config)
	require.NoError(t, c.CreateNamespace("n", nil))
	c.Advance(10 * time.Second)
	require.Empty(t, all[*corev1.ResourceQuota](&c.store, "n"))
	require.NoError(t, r.SetLimit("n", hard))
	c.Advance(10 * time.Second)
	quotas := all[*corev1.ResourceQuota](&c.store, "n")
	require.Len(t, quotas, 1)
	require.Regexp(t, "^default-", quotas[0].Name)
	require.Equal(t, map[string]string{RancherLabel: "true"}, quotas[0].Labels)
	return c, r, quotas[0].Name
}

// raise changes spec.hard, as Harvester does.
func raise(t *testing.T, c *Cluster, name string, hard corev1.ResourceList) {
	rq := c.Quota("n", name)
	rq.Spec.Hard = hard
	rq.Annotations = map[string]string{"kept": "yes"}
	_, err := c.update("somebody", rq, false)
	require.NoError(t, err)
}

func spec(c *Cluster, name string) string { return list(c.Quota("n", name).Spec.Hard) }

func TestRancherResetsOnNamespaceEvents(t *testing.T) {
	c, r, name := managed(t, RancherConfig{Latency: Span{20 * ms, 20 * ms}}, quantities("limits.cpu", "4", "pods", "7"))
	require.Equal(t, "{limits.cpu=4 pods=7}", spec(c, name))
	version := c.Quota("n", name).ResourceVersion
	r.Restart()
	c.Advance(time.Minute)
	require.Equal(t, version, c.Quota("n", name).ResourceVersion, "equal limits are not written")

	raise(t, c, name, quantities("limits.cpu", "8", "pods", "7"))
	c.Advance(time.Hour)
	require.Equal(t, "{limits.cpu=8 pods=7}", spec(c, name), "it does not look at quotas")
	r.Touch("n")
	c.Advance(79 * ms)
	require.Equal(t, "{limits.cpu=8 pods=7}", spec(c, name))
	c.Advance(1 * ms)
	require.Equal(t, "{limits.cpu=4 pods=7}", spec(c, name), "an event and three calls later")
	require.Equal(t, map[string]string{"kept": "yes"}, c.Quota("n", name).Annotations)

	raise(t, c, name, quantities("limits.cpu", "8", "pods", "7"))
	r.Restart()
	c.Advance(time.Second)
	require.Equal(t, "{limits.cpu=4 pods=7}", spec(c, name))
	require.NoError(t, r.SetLimit("n", nil))
	c.Advance(time.Second)
	require.Nil(t, c.Quota("n", name))
	require.Empty(t, r.quotas("n"))
}

func TestRancherWritesTheNamespaceWhenItResets(t *testing.T) {
	c, r, name := managed(t, RancherConfig{Latency: Span{20 * ms, 20 * ms}}, quantities("limits.cpu", "4"))
	writes := 0
	c.store.tell = append(c.store.tell, func(happened change) {
		if happened.kind == Namespaces {
			writes++
		}
	})
	raise(t, c, name, quantities("limits.cpu", "8"))
	r.Touch("n")
	c.Advance(time.Minute)
	require.Equal(t, 1, writes, "the condition has a timestamp")
}

// reraiser raises the quota of Rancher again whenever it was reset.
func reraiser(name string) func(*Process) Program {
	return func(p *Process) Program {
		return Program{Reconcile: func(ctx context.Context, _ string) (time.Duration, error) {
			quotas := p.Client.CoreV1().ResourceQuotas("n")
			rq, err := quotas.Get(ctx, name, metav1.GetOptions{})
			if err != nil || list(rq.Spec.Hard) == "{limits.cpu=8}" {
				return 0, err
			}
			rq.Spec.Hard = quantities("limits.cpu", "8")
			_, err = quotas.Update(ctx, rq, metav1.UpdateOptions{})
			return 0, err
		}}
	}
}

func TestSlowRancherAndAReraiserChaseEachOther(t *testing.T) {
	count := func(latency time.Duration) (resets, namespaces int) {
		c, r, name := managed(t, RancherConfig{Latency: Span{latency, latency}}, quantities("limits.cpu", "4"))
		c.Start("us", reraiser(name))
		c.Advance(10 * time.Second)
		c.store.tell = append(c.store.tell, func(happened change) {
			switch {
			case happened.user != RancherUser:
			case happened.kind == ResourceQuotas:
				resets++
			case happened.kind == Namespaces:
				namespaces++
			}
		})
		r.Touch("n")
		c.Advance(15 * time.Second)
		return resets, namespaces
	}
	resets, _ := count(10 * ms)
	require.LessOrEqual(t, resets, 2)
	resets, namespaces := count(600 * ms)
	require.InDelta(t, 6, resets, 2, "as was measured")
	require.InDelta(t, 7, namespaces, 3)
}

func TestRancherRetriesConflicts(t *testing.T) {
	c, r, name := managed(t, RancherConfig{Latency: Span{20 * ms, 20 * ms}}, quantities("limits.cpu", "4"))
	raise(t, c, name, quantities("limits.cpu", "5"))
	c.Advance(time.Second)
	r.Touch("n")
	c.Advance(70 * ms)
	// Its cache will not have this one when it writes.
	raise(t, c, name, quantities("limits.cpu", "6"))
	c.Advance(10 * ms)
	require.Equal(t, 1, r.rounds["n"].failures)
	require.Equal(t, "{limits.cpu=6}", spec(c, name))
	c.Advance(time.Minute)
	require.Zero(t, r.rounds["n"].failures)
	require.Equal(t, "{limits.cpu=4}", spec(c, name))
}

// Rancher neither sees nor changes what is enforced, and with its lock the status is open
// for whoever enforces.
func TestRancherAndAnEnforcedLimit(t *testing.T) {
	c := New(Config{Lock: RancherUser})
	r := c.StartRancher(RancherConfig{Latency: Span{20 * ms, 20 * ms}})
	require.NoError(t, c.CreateNamespace("n", nil))
	require.NoError(t, r.SetLimit("n", quantities("limits.cpu", "4", "pods", "7")))
	c.Advance(10 * time.Second)
	name := r.quotas("n")[0].Name
	rq := c.Quota("n", name)
	rq.Status.Hard["limits.cpu"], rq.Annotations = milli(8000), map[string]string{"kept": "yes"}
	_, err := c.Client("headroom").CoreV1().ResourceQuotas("n").UpdateStatus(context.Background(), rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	version := c.Quota("n", name).ResourceVersion
	r.Restart()
	c.Advance(time.Minute)
	require.Equal(t, version, c.Quota("n", name).ResourceVersion, "it writes nothing")

	require.NoError(t, r.SetLimit("n", quantities("limits.cpu", "5", "pods", "7")))
	c.Advance(time.Second)
	rq = c.Quota("n", name)
	require.Equal(t, "{limits.cpu=5 pods=7}", list(rq.Spec.Hard))
	require.Equal(t, "{limits.cpu=5 pods=7}", list(rq.Status.Hard), "a new static limit resets what is enforced")
	require.Equal(t, map[string]string{"kept": "yes"}, rq.Annotations)
}

func TestCacheOfRancherNeverGoesBack(t *testing.T) {
	c, r, name := managed(t, RancherConfig{Latency: Span{0, 100 * ms}}, quantities("pods", "1"))
	last := resource.Quantity{}
	for i := range 200 {
		raise(t, c, name, corev1.ResourceList{"pods": milli(int64(1000 * (i + 2)))})
		c.Advance(ms)
		seen := r.quotas("n")[0].Spec.Hard["pods"]
		require.GreaterOrEqual(t, seen.Cmp(last), 0)
		last = seen
	}
	require.Positive(t, last.Cmp(milli(50_000)))
	require.Empty(t, r.quotas("other"))
}

func TestRancherKeepsTheProjectsLimits(t *testing.T) {
	c, r, name := managed(t, RancherConfig{Project: quantities("limits.cpu", "10")}, quantities("limits.cpu", "4", "limits.memory", "1Gi"))
	require.NoError(t, r.SetLimit("n", quantities("limits.cpu", "11", "limits.memory", "2Gi")))
	c.Advance(time.Second)
	require.Equal(t, "{limits.cpu=4 limits.memory=1Gi}", spec(c, name), "what does not fit stays in the annotation")
	ns, _ := find[*corev1.Namespace](&c.store, "", "n")
	require.Contains(t, ns.Annotations[rancher.LimitsAnnotation], `"limitsCpu":"11"`)
	require.Contains(t, ns.Annotations[statusAnnotation], `"Status":"False"`)

	require.NoError(t, c.CreateNamespace("m", nil))
	require.NoError(t, r.SetLimit("m", quantities("limits.cpu", "1", "limits.memory", "1Gi")))
	c.Advance(time.Second)
	require.Equal(t, "{limits.cpu=0 limits.memory=1Gi}", list(all[*corev1.ResourceQuota](&c.store, "m")[0].Spec.Hard), "in a new quota it is zero")
}

func TestTenant(t *testing.T) {
	c := vms(t, Config{Seed: 3}, 2, 1)
	tenant := c.Tenant("n")
	require.ErrorIs(t, tenant.DeletePod(), errNothing)
	require.ErrorIs(t, tenant.Abort(), errNothing)
	require.ErrorIs(t, c.Tenant("empty").DeleteVMI(), errNothing)
	require.ErrorIs(t, c.Tenant("empty").Migrate(Outcome{}), errNothing)
	require.ErrorIs(t, c.Tenant("empty").KillPod(), errNothing)
	require.ErrorIs(t, c.Tenant("empty").Steal(), errNothing)

	require.NoError(t, tenant.CreatePod(quantities("cpu", "15m", "memory", "714688")))
	c.Advance(time.Second)
	require.NoError(t, tenant.Steal())
	require.Equal(t, list(room(3)), used(c, "n"), "to the last byte")
	require.ErrorIs(t, tenant.Steal(), errNothing)
	require.ErrorContains(t, tenant.CreatePod(quantities("cpu", "1m", "memory", "1")), "exceeded quota")
	require.NoError(t, tenant.DeletePod())
	require.NoError(t, tenant.DeletePod())
	require.ErrorIs(t, tenant.DeletePod(), errNothing, "it does not touch those of VMs")
	c.Advance(time.Minute)
	require.Equal(t, list(room(2)), used(c, "n"))

	require.NoError(t, tenant.Migrate(Outcome{Hang: true}))
	c.Advance(time.Minute)
	require.Equal(t, "Running", phases(c))
	require.NoError(t, tenant.Abort())
	c.Advance(time.Minute)
	require.Empty(t, phases(c))
	require.NoError(t, tenant.KillPod())
	c.Advance(time.Minute)
	require.Len(t, c.Snapshot("n").VMIs, 2)
	require.NoError(t, tenant.DeleteVMI())
	c.Advance(time.Minute)
	require.Len(t, c.Snapshot("n").VMIs, 1)
	require.ErrorContains(t, tenant.EditQuota("missing", nil), "not found")
	require.NoError(t, tenant.DeleteQuota("n"))
	require.Nil(t, c.Quota("n", "n"))
}

func TestStealTakesTheLeastThatIsFree(t *testing.T) {
	c := withQuotas(t, newQuota("n", "a", quantities("limits.cpu", "4", "memory", "1Gi")), newQuota("n", "b", quantities("requests.cpu", "3", "limits.memory", "2Gi")))
	require.NoError(t, c.Tenant("n").Steal())
	require.Equal(t, "{limits.cpu=3 memory=1Gi}", used(c, "a"))
	require.Equal(t, "{limits.memory=1Gi requests.cpu=3}", used(c, "b"))
}
