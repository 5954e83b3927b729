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
	require.NoError(t, c.Tenant("n").EditQuota("q", func(hard corev1.ResourceList) { hard["services"] = milli(2000) }))
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

func TestClusterAtRestHasNothingToDo(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("pods", "5")))
	require.NoError(t, createPod(c, podOf("x", limits())))
	steps := 0
	for c.Step() {
		steps++
		require.Less(t, steps, 100)
	}
	require.Equal(t, "{pods=1}", used(c, "q"))
}
