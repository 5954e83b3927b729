package fake

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func TestGuard(t *testing.T) {
	const mark = "an-offer-is-open"
	raised := func(pods int64) corev1.ResourceList { return corev1.ResourceList{"pods": milli(1000 * pods)} }
	for name, test := range map[string]struct {
		guard       string
		enforced    corev1.ResourceList
		annotations map[string]string
		refused     bool
	}{
		"closed":                            {mark, raised(6), map[string]string{mark: ""}, true},
		"no offer":                          {mark, raised(6), map[string]string{"another": ""}, false},
		"an offer that a recount has ended": {mark, raised(5), map[string]string{mark: ""}, false},
		"a limit that is not static":        {mark, quantities("pods", "5", "services", "1"), map[string]string{mark: ""}, false},
		"no policy":                         {"", raised(6), map[string]string{mark: ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(Config{Timing: &Timing{}, Guard: test.guard})
			enforce(t, c, newQuota("n", "q", raised(5)))
			enforce(t, c, newQuota("n", "r", quantities("persistentvolumeclaims", "5")))
			rq := c.Quota("n", "q")
			rq.Status.Hard, rq.Annotations = test.enforced, test.annotations
			require.NoError(t, updateStatus(c, "us", rq))

			target := podOf("target", limits())
			target.Labels = map[string]string{kubevirtv1.MigrationJobLabel: "uid"}
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "claim"}}
			for _, err := range []error{
				createPod(c, podOf("regular", limits())), createPod(c, target), createAs(c, "tenant", claim),
				createAs(c, virtControllerUser, podOf("new-vm", limits())),
			} {
				require.Equal(t, test.refused, apierrors.IsForbidden(err), "%v", err)
			}
			target.Name = "target-of-kubevirt"
			require.NoError(t, createAs(c, virtControllerUser, target))
			require.NoError(t, createAs(c, "tenant", newConfigMap("x")))
			require.NoError(t, createAs(c, "tenant", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "m", Name: "elsewhere"}}))
		})
	}
}

func TestGuardLagsBehind(t *testing.T) {
	const lag = 10 * ms
	c := New(Config{Timing: &Timing{Guard: Span{lag, lag}}, Guard: "open"})
	enforce(t, c, newQuota("n", "q", quantities("pods", "0")))
	rq := c.Quota("n", "q")
	rq.Status.Hard, rq.Annotations = quantities("pods", "2"), map[string]string{"open": ""}
	require.NoError(t, updateStatus(c, "us", rq))
	c.Advance(lag - 1)
	require.NoError(t, createPod(c, podOf("x", limits())), "quota admission has it, the guard has not")
	c.Advance(1)
	require.ErrorContains(t, createPod(c, podOf("y", limits())), "try again in a moment")
}
