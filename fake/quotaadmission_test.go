package fake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withQuotas returns a cluster without lags, in whose namespace n the quotas are
// enforced.
func withQuotas(t *testing.T, quotas ...*corev1.ResourceQuota) *Cluster {
	c := New(Config{Timing: &Timing{}})
	for _, rq := range quotas {
		enforce(t, c, rq)
	}
	return c
}

func enforce(t *testing.T, c *Cluster, rq *corev1.ResourceQuota) {
	require.NoError(t, createAs(c, "admin", rq))
	c.Advance(time.Second)
}

func podOf(name string, containers ...corev1.ResourceRequirements) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
	for i, r := range containers {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Resources: r})
	}
	return pod
}

func limits(pairs ...string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Limits: quantities(pairs...)}
}

func requests(pairs ...string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: quantities(pairs...)}
}

func createPod(c *Cluster, pod *corev1.Pod) error { return createAs(c, "tenant", pod) }

func createAs(c *Cluster, user string, o object) error {
	_, err := c.create(user, o)
	return err
}

func updateStatus(c *Cluster, user string, o object) error {
	_, err := c.update(user, o, true)
	return err
}

func used(c *Cluster, name string) string { return list(c.Quota("n", name).Status.Used) }

func TestQuotaRefusesInKubernetesWords(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("limits.cpu", "1015m", "limits.memory", "2773714688", "pods", "5")))
	launcher := limits("cpu", "1015m", "memory", "2773714688")
	require.NoError(t, createPod(c, podOf("one", launcher)))
	require.Equal(t, "{limits.cpu=1015m limits.memory=2773714688 pods=1}", used(c, "q"))

	err := createPod(c, podOf("x", launcher))
	require.True(t, apierrors.IsForbidden(err))
	require.EqualError(t, err, `pods "x" is forbidden: exceeded quota: q, requested: limits.cpu=1015m,limits.memory=2773714688, used: limits.cpu=1015m,limits.memory=2773714688, limited: limits.cpu=1015m,limits.memory=2773714688`)
	err = createPod(c, podOf("x", limits("cpu", "0", "memory", "1")))
	require.EqualError(t, err, `pods "x" is forbidden: exceeded quota: q, requested: limits.memory=1, used: limits.memory=2773714688, limited: limits.memory=2773714688`)
	require.Equal(t, "{limits.cpu=1015m limits.memory=2773714688 pods=1}", used(c, "q"), "what is refused is not charged")
}

func TestQuotaDemandsThatContainersSayWhatTheyNeed(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("limits.cpu", "10", "requests.memory", "10Gi", "limits.ephemeral-storage", "1Gi")))
	err := createPod(c, podOf("x", limits("cpu", "1"), requests("memory", "1"), limits()))
	require.EqualError(t, err, `pods "x" is forbidden: failed quota: q: must specify limits.cpu for: b,c; requests.memory for: a,c`)
	require.True(t, apierrors.IsForbidden(err))
	same := podOf("x", limits(), limits(), limits("cpu", "1", "memory", "1Gi"))
	same.Spec.Containers[0].Name = "b"
	require.EqualError(t, createPod(c, same), `pods "x" is forbidden: failed quota: q: must specify limits.cpu for: b; requests.memory for: b`)
	require.NoError(t, createPod(c, podOf("y", limits("cpu", "1", "memory", "1Gi"))), "requests are limits where they are missing")

	inits := podOf("z", limits("cpu", "1", "memory", "1Gi"))
	inits.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	require.ErrorContains(t, createPod(c, inits), "must specify limits.cpu for: i; requests.memory for: i")
	level := podOf("level", limits())
	level.Spec.Resources = &corev1.ResourceRequirements{Limits: quantities("cpu", "1", "memory", "1Gi"), Requests: quantities("memory", "1Gi")}
	require.NoError(t, createPod(c, level), "pod-level resources do")
}

// Only status.hard counts, whoever wrote it: above spec.hard, below it, or with other keys.
func TestQuotaAdmissionReadsTheStatusOnly(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("pods", "1", "limits.cpu", "1")))
	enforce := func(hard corev1.ResourceList) {
		rq := c.Quota("n", "q")
		rq.Status.Hard = hard
		require.NoError(t, updateStatus(c, "somebody", rq))
		c.Advance(0)
	}
	enforce(quantities("pods", "2", "limits.cpu", "2"))
	for _, name := range []string{"one", "two"} {
		require.NoError(t, createPod(c, podOf(name, limits("cpu", "1"))))
	}
	require.Equal(t, "{limits.cpu=2 pods=2}", enforced(c), "a charge keeps it")
	require.ErrorContains(t, createPod(c, podOf("x", limits("cpu", "1"))), "limited: limits.cpu=2,pods=2")
	enforce(quantities("pods", "3"))
	require.NoError(t, createPod(c, podOf("three", limits("cpu", "1"))))
	enforce(quantities("pods", "0"))
	require.ErrorContains(t, createPod(c, podOf("x", limits("cpu", "1"))), "limited: pods=0")
}

// A charge and a foreign update of the status do not lose each other.
func TestQuotaAdmissionAndAForeignStatusConflict(t *testing.T) {
	c := slowAdmission(t, 5*time.Millisecond)
	before := c.Quota("n", "q")
	raiseStatus(t, c, "2")
	require.NoError(t, createPod(c, podOf("x", limits())), "it has seen the raise at the second try")
	require.Equal(t, "{pods=2}", enforced(c))
	before.Status.Hard = quantities("pods", "9")
	_, err := c.Client("somebody").CoreV1().ResourceQuotas("n").UpdateStatus(context.Background(), before, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err))
}

func TestQuotaWithoutStatusLetsNothingIn(t *testing.T) {
	ctx, c := context.Background(), New(Config{Timing: &Timing{}})
	quotas := c.Client("admin").CoreV1().ResourceQuotas("n")
	rq, err := quotas.Create(ctx, newQuota("n", "q", quantities("pods", "1", "services", "1")), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, createPod(c, podOf("before", limits())), "without status.hard nothing is limited")
	rq.Status.Hard = rq.Spec.Hard
	_, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.EqualError(t, createPod(c, podOf("x", limits())), `pods "x" is forbidden: status unknown for quota: q, resources: pods`)
}

func TestQuotaScopes(t *testing.T) {
	best, rest := newQuota("n", "best", quantities("pods", "0")), newQuota("n", "rest", quantities("pods", "1"))
	best.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
	rest.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeNotBestEffort}
	c := withQuotas(t, best, rest)
	require.NoError(t, createPod(c, podOf("x", limits("cpu", "1"))))
	require.Equal(t, "{pods=1}", used(c, "rest"))
	require.Equal(t, "{pods=0}", used(c, "best"))
	require.ErrorContains(t, createPod(c, podOf("y", limits())), "exceeded quota: best")
	require.ErrorContains(t, createPod(c, podOf("y", limits("cpu", "1"))), "exceeded quota: rest")
}

func TestQuotaOnClaims(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("requests.storage", "10Mi", "gold.storageclass.storage.k8s.io/requests.storage", "5Mi", "pods", "1")))
	claim := func(class, size string) error {
		_, err := c.Client("tenant").CoreV1().PersistentVolumeClaims("n").Create(context.Background(), &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "claim-"},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class,
				Resources:        corev1.VolumeResourceRequirements{Requests: quantities("storage", size)},
			},
		}, metav1.CreateOptions{})
		return err
	}
	require.ErrorContains(t, claim("gold", "6Mi"), "exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=6Mi, used: gold.storageclass.storage.k8s.io/requests.storage=0, limited: gold.storageclass.storage.k8s.io/requests.storage=5Mi")
	require.NoError(t, claim("silver", "6Mi"))
	require.ErrorContains(t, claim("silver", "6Mi"), "persistentvolumeclaims \"claim-")
	require.Equal(t, "{gold.storageclass.storage.k8s.io/requests.storage=0 pods=0 requests.storage=6Mi}", used(c, "q"))
}

func TestQuotaChargesBeforeThePodIsStored(t *testing.T) {
	c := withQuotas(t, newQuota("n", "q", quantities("pods", "5")))
	var order []string
	c.store.tell = append(c.store.tell, func(happened change) {
		order = append(order, happened.user+" "+string(happened.kind))
	})
	require.NoError(t, createPod(c, podOf("x", limits())))
	require.Equal(t, []string{"kube-apiserver resourcequotas", "tenant pods"}, order)
	require.True(t, apierrors.IsAlreadyExists(createPod(c, podOf("x", limits()))))
	require.Equal(t, "{pods=2}", used(c, "q"), "charged for nothing")
	c.Advance(quotaResync)
	require.Equal(t, "{pods=1}", used(c, "q"), "until all is counted anew")
}

// slowAdmission is a cluster whose quota admission sees quotas lag late.
func slowAdmission(t *testing.T, lag time.Duration) *Cluster {
	c := New(Config{Timing: &Timing{Admission: Span{lag, lag}}})
	enforce(t, c, newQuota("n", "q", quantities("pods", "1")))
	return c
}

func TestQuotaAdmissionSeesItsOwnWrites(t *testing.T) {
	c := slowAdmission(t, 100*time.Millisecond)
	require.NoError(t, createPod(c, podOf("x", limits())))
	require.ErrorContains(t, createPod(c, podOf("y", limits())), "used: pods=1")
}

func TestQuotaAdmissionLagsBehind(t *testing.T) {
	const lag = 100 * time.Millisecond
	c := slowAdmission(t, lag)
	require.NoError(t, createPod(c, podOf("x", limits())))
	require.NoError(t, c.EditQuota("n", "q", func(hard corev1.ResourceList) { hard["pods"] = milli(2000) }))
	c.Advance(lag - 1)
	require.Equal(t, "{pods=2}", list(c.Quota("n", "q").Status.Hard))
	require.ErrorContains(t, createPod(c, podOf("y", limits())), "limited: pods=1", "its cache does not have the raise")
	c.Advance(1)
	require.NoError(t, createPod(c, podOf("y", limits())))
}

func TestQuotaAdmissionGivesUpAfterConflicts(t *testing.T) {
	annotate := func(c *Cluster) {
		rq := c.Quota("n", "q")
		rq.Annotations = map[string]string{"a": c.suffix()}
		_, err := c.update("somebody", rq, false)
		require.NoError(t, err)
	}
	c := slowAdmission(t, 100*time.Millisecond)
	annotate(c)
	err := createPod(c, podOf("x", limits()))
	require.True(t, apierrors.IsConflict(err))
	require.NotContains(t, err.Error(), "exceeded quota")

	c = slowAdmission(t, 5*time.Millisecond)
	annotate(c)
	require.NoError(t, createPod(c, podOf("x", limits())), "a retry sees the new version")
}

func TestQuotaAdmissionForgetsDeletedQuotas(t *testing.T) {
	c := slowAdmission(t, 100*time.Millisecond)
	require.NoError(t, createPod(c, podOf("x", limits())))
	require.NoError(t, c.remove("tenant", ResourceQuotas, "n", "q", metav1.DeleteOptions{}))
	c.Advance(100 * time.Millisecond)
	require.NoError(t, createPod(c, podOf("y", limits())))
}

func TestLimitRangeDefaults(t *testing.T) {
	ctx, c := context.Background(), withQuotas(t, newQuota("n", "q", quantities("limits.cpu", "10", "requests.cpu", "10", "limits.memory", "10Gi", "requests.memory", "10Gi")))
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypePod, Max: quantities("cpu", "100")},
		{Type: corev1.LimitTypeContainer, Max: quantities("cpu", "4"), Default: quantities("memory", "2Gi"), DefaultRequest: quantities("memory", "1Gi"), Min: quantities("cpu", "1")},
	}}}
	require.NoError(t, createAs(c, "admin", limits))
	pod := podOf("x", requests("cpu", "1"))
	pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	require.NoError(t, createPod(c, pod))
	stored, err := c.Client("admin").CoreV1().Pods("n").Get(ctx, "x", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "{cpu=1 memory=1Gi}", list(stored.Spec.Containers[0].Resources.Requests))
	require.Equal(t, "{cpu=4 memory=2Gi}", list(stored.Spec.Containers[0].Resources.Limits), "the maximum is the default")
	require.Equal(t, "{cpu=4 memory=1Gi}", list(stored.Spec.InitContainers[0].Resources.Requests), "the default is that of requests, before the minimum")
	require.Equal(t, "{limits.cpu=4 limits.memory=2Gi requests.cpu=4 requests.memory=1Gi}", used(c, "q"))
}
