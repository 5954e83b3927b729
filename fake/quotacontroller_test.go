package fake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStatusHardLagsBehind(t *testing.T) {
	c := New(Config{Timing: &Timing{Quota: Span{8 * time.Millisecond, 8 * time.Millisecond}}})
	enforce(t, c, newQuota("n", "q", quantities("pods", "1")))
	require.NoError(t, c.EditQuota("n", "q", func(hard corev1.ResourceList) { hard["services"] = milli(2000) }))
	c.Advance(7 * time.Millisecond)
	require.Equal(t, "{pods=1}", list(c.Quota("n", "q").Status.Hard))
	c.Advance(time.Millisecond)
	require.Equal(t, "{pods=1 services=2}", list(c.Quota("n", "q").Status.Hard))
	require.Equal(t, "{pods=0 services=0}", used(c, "q"))
}

func TestUsageFallsWhenAPodEnds(t *testing.T) {
	const lag = 10 * time.Millisecond
	c := New(Config{Timing: &Timing{Quota: Span{lag, lag}}})
	enforce(t, c, newQuota("n", "q", quantities("pods", "5", "count/pods", "5", "limits.cpu", "5")))
	enforce(t, c, newQuota("n", "claims", quantities("persistentvolumeclaims", "5")))
	require.NoError(t, createPod(c, podOf("x", limits("cpu", "1"))))
	c.Advance(time.Second)
	claims := c.Quota("n", "claims").ResourceVersion
	pod, _ := find[*corev1.Pod](&c.store, "n", "x")
	write(c, kubeletUser, pod, c.nodes.finish)
	c.Advance(lag - 1)
	require.Equal(t, "{count/pods=1 limits.cpu=1 pods=1}", used(c, "q"), "it is still counted")
	c.Advance(1)
	require.Equal(t, "{count/pods=1 limits.cpu=0 pods=0}", used(c, "q"), "the object stays")
	require.NoError(t, c.remove("tenant", Pods, "n", "x", metav1.DeleteOptions{}))
	c.Advance(lag)
	require.Equal(t, "{count/pods=0 limits.cpu=0 pods=0}", used(c, "q"))
	require.Equal(t, claims, c.Quota("n", "claims").ResourceVersion)
}

func TestUsageFallsWhenAClaimGoes(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("requests.storage", "1Gi")))
	claims := c.Client("tenant").CoreV1().PersistentVolumeClaims("n")
	_, err := claims.Create(context.Background(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: quantities("storage", "1Mi")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, "{requests.storage=1Mi}", used(c, "q"))
	require.NoError(t, claims.Delete(context.Background(), "claim", metav1.DeleteOptions{}))
	c.Advance(0)
	require.Equal(t, "{requests.storage=0}", used(c, "q"))
}

func TestUsageOfScopedQuotas(t *testing.T) {
	c := withQuotas(t)
	require.NoError(t, createPod(c, podOf("best", limits())))
	require.NoError(t, createPod(c, podOf("rest", limits("cpu", "1"))))
	scoped := newQuota("n", "q", quantities("count/pods", "5", "limits.cpu", "5"))
	scoped.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeNotBestEffort}
	enforce(t, c, scoped)
	require.Equal(t, "{count/pods=1 limits.cpu=1}", used(c, "q"), "those that were there before it are counted too")
}

// The quota controller has counted a new quota, and admission does not know yet.
func TestPodThatComesRightAfterItsQuota(t *testing.T) {
	c := New(Config{Timing: &Timing{Quota: Span{5 * time.Millisecond, 5 * time.Millisecond}, Admission: Span{10 * time.Millisecond, 10 * time.Millisecond}}})
	require.NoError(t, c.CreateNamespace("n", quantities("pods", "5")))
	c.Advance(6 * time.Millisecond)
	require.NoError(t, createPod(c, podOf("x", limits())))
	c.Advance(quotaResync - time.Minute)
	require.NoError(t, createPod(c, podOf("y", limits())))
	require.Equal(t, "{pods=1}", used(c, "n"))
	c.Advance(2 * time.Minute)
	require.Equal(t, "{pods=2}", used(c, "n"))
}

func TestClusterAtRestHasNothingToDo(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("pods", "5")))
	require.NoError(t, createPod(c, podOf("x", limits())))
	steps := 0
	for c.clock.step() {
		steps++
		require.Less(t, steps, 100)
	}
	require.Equal(t, "{pods=1}", used(c, "q"))
}

// raised is a cluster in which somebody has written status.hard of quota q, with an
// annotation, while spec.hard is one pod of which one is used.
func raised(t *testing.T) *Cluster {
	c := withQuotas(t, newQuota("n", "q", quantities("pods", "1")))
	require.NoError(t, createPod(c, podOf("x", limits())))
	raiseStatus(t, c, "3")
	return c
}

func raiseStatus(t *testing.T, c *Cluster, pods string) {
	rq := c.Quota("n", "q")
	rq.Status.Hard, rq.Annotations = quantities("pods", pods), map[string]string{"kept": "yes"}
	require.NoError(t, updateStatus(c, "somebody", rq))
}

func enforced(c *Cluster) string { return list(c.Quota("n", "q").Status.Hard) }

func TestRecountEndsAForeignStatusHard(t *testing.T) {
	for name, test := range map[string]struct {
		after   time.Duration
		recount func(t *testing.T, c *Cluster)
		used    string
	}{
		"when a pod ends": {used: "{pods=0}", recount: func(t *testing.T, c *Cluster) {
			require.NoError(t, c.remove("tenant", Pods, "n", "x", *metav1.NewDeleteOptions(0)))
		}},
		"when spec.hard changes": {used: "{pods=1}", recount: func(t *testing.T, c *Cluster) {
			for _, pods := range []int64{2000, 1000} {
				require.NoError(t, c.EditQuota("n", "q", func(hard corev1.ResourceList) { hard["pods"] = milli(pods) }))
			}
		}},
		"every five minutes": {after: quotaResync, used: "{pods=1}", recount: func(*testing.T, *Cluster) {}},
	} {
		t.Run(name, func(t *testing.T) {
			c := raised(t)
			c.Advance(time.Minute)
			require.Equal(t, "{pods=3}", enforced(c), "an update of the status wakes nobody")
			version := c.Quota("n", "q").ResourceVersion
			writes := 0
			c.store.tell = append(c.store.tell, func(happened change) {
				if happened.user == quotaControllerUser {
					writes++
				}
			})
			test.recount(t, c)
			c.Advance(test.after)
			require.NotEqual(t, version, c.Quota("n", "q").ResourceVersion)
			require.Equal(t, "{pods=1}", enforced(c))
			require.Equal(t, test.used, used(c, "q"))
			require.Equal(t, map[string]string{"kept": "yes"}, c.Quota("n", "q").Annotations)
			require.Equal(t, 1, writes, "both in one update")
		})
	}
}

func TestAnAnnotationOrALabelIsNoReasonToRecount(t *testing.T) {
	c := raised(t)
	rq := c.Quota("n", "q")
	rq.Annotations, rq.Labels = map[string]string{"other": "yes"}, map[string]string{"other": "yes"}
	_, err := c.Client("somebody").CoreV1().ResourceQuotas("n").Update(context.Background(), rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	c.Advance(time.Minute)
	require.Equal(t, "{pods=3}", enforced(c))
}

func TestQuotaControllerThatIsDown(t *testing.T) {
	c := raised(t)
	c.StopQuotaController()
	require.NoError(t, createPod(c, podOf("y", limits())), "admission goes on")
	require.NoError(t, c.remove("tenant", Pods, "n", "y", *metav1.NewDeleteOptions(0)))
	require.NoError(t, c.EditQuota("n", "q", func(hard corev1.ResourceList) { hard["pods"] = milli(2000) }))
	c.Advance(time.Hour)
	require.Equal(t, "{pods=3}", enforced(c))
	require.Equal(t, "{pods=2}", used(c, "q"))
	c.StartQuotaController()
	c.StartQuotaController()
	c.Advance(0)
	require.Equal(t, "{pods=2}", enforced(c))
	require.Equal(t, "{pods=1}", used(c, "q"))
	raiseStatus(t, c, "4")
	c.Advance(quotaResync)
	require.Equal(t, "{pods=2}", enforced(c))
}

func TestAdversaryResetsLimits(t *testing.T) {
	c := raised(t)
	c.ResetLimits(10 * ms)
	c.Advance(9 * ms)
	require.Equal(t, "{pods=3}", enforced(c))
	c.Advance(ms)
	require.Equal(t, "{pods=1}", enforced(c))
	raiseStatus(t, c, "4")
	c.ResetLimits(time.Minute)
	c.Advance(time.Minute - 1)
	require.Equal(t, "{pods=4}", enforced(c))
	c.Advance(1)
	require.Equal(t, "{pods=1}", enforced(c))
	raiseStatus(t, c, "4")
	c.ResetLimits(0)
	c.Advance(2 * time.Minute)
	require.Equal(t, "{pods=4}", enforced(c))
}

func TestFinishEndsTheAdversaryAndStartsTheQuotaController(t *testing.T) {
	c := raised(t)
	c.StopQuotaController()
	c.ResetLimits(time.Second)
	c.Finish()
	raiseStatus(t, c, "4")
	c.Advance(time.Minute)
	require.Equal(t, "{pods=4}", enforced(c))
	c.Advance(quotaResync)
	require.Equal(t, "{pods=1}", enforced(c))
}
