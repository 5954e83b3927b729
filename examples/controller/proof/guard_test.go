package proof

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/applier"
)

// The thief gets room without the guard, and none with it. The migration does, with the
// guard too. Where room comes with no announcement, what is stolen is printed.
func TestThief(t *testing.T) {
	output := try.Must(stage.Shell(t, ".", "thief"))(t)
	rows := 0
	for line := range strings.Lines(output) {
		row := regexp.MustCompile(`^(on|off) +(none|20ms before the room|with the room) +(.*?) {2,}([0-9 ]+)\n$`).FindStringSubmatch(line)
		if row == nil {
			continue
		}
		rows++
		guard, announced, who, stolen := row[1], row[2], row[3], strings.Fields(row[4])
		require.Len(t, stolen, 5, line)
		for _, pods := range stolen {
			switch {
			case guard == "off" || strings.HasPrefix(who, "KubeVirt's controller"):
				require.NotEqual(t, "0", pods, line)
			case announced == "20ms before the room":
				require.Equal(t, "0", pods, line)
			}
		}
	}
	require.Equal(t, 10, rows)
}

// Headroom offers room for a migration, and virt-controller is away: regular pods do not get
// the room, whatever they say they are. It comes back, and its target pod does.
func TestGuardOfAnOffer(t *testing.T) {
	r := newReplica(t, "replica", "--guard")
	s := newScene(t, 1)
	label(s.Cluster, "enabled")
	s.Disable(true)
	s.Migrate(1, "")
	s.AwaitPhase("m0", scenario.Refused)
	stage.Bed.Kill(t, bed.VirtController)
	vmim := try.Must(s.VMIMs().Get(t.Context(), "m0"))(t)
	forged := map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": string(vmim.UID)}
	s.Disable(false)

	// The offer lapses, and is made again, so these pods come before, in and after it.
	refused := map[string]int{}
	try.Eventually(t, func(c try.T) {
		for name, labels := range map[string]map[string]string{"no labels": nil, "forged labels": forged} {
			_, err := admin.CoreV1().Pods(s.Namespace()).Create(t.Context(), thiefPod(labels), metav1.CreateOptions{})
			require.True(t, apierrors.IsForbidden(err), "%s: %v", name, err)
			if strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'headroom-guard'") {
				require.ErrorContains(t, err, judged, name)
				refused[name]++
			}
		}
		require.Len(c, refused, 2)
	})
	t.Log("refused by the guard:", refused)

	stage.Bed.Restart(t, bed.VirtController)
	s.Succeeded("m0")
	s.AwaitRest()
	requireAllowed(t, r)
}

// label switches the guard in a namespace.
func label(c *onbed.Cluster, value string) {
	c.Helper()
	c.PatchNamespace("labels", "headroom.vmquota.io/guard", value)
}

const judged = "has room for a live migration at the moment, and for nothing else: try again in a moment"

// The guard is on where the overlay that is applied and the label of the namespace say so,
// and what it cannot judge fails as the overlay says. It ends with the raise, not with the
// annotation.
func TestSwitchesOfTheGuard(t *testing.T) {
	c := stage.Cluster(t, "switches")
	namespace, quotas := c.Namespace(), admin.CoreV1().ResourceQuotas(c.Namespace())
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	passes := func() {
		t.Helper()
		try.Eventually(t, func(c try.T) { require.NoError(c, attempt(t, namespace)) })
	}
	enforce := func(c require.TestingT) {
		rq := try.Must(quotas.Get(t.Context(), "q", metav1.GetOptions{}))(c)
		rq.Annotations = map[string]string{applier.OfferAnnotation: "open"}
		rq.Status.Hard = corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("3")}
		try.Must(quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{}))(c)
	}
	refused := func(says string) {
		t.Helper()
		try.Eventually(t, func(c try.T) {
			enforce(c) // kube-controller-manager may have recounted
			err := attempt(t, namespace)
			require.ErrorContains(c, err, "headroom-guard")
			require.ErrorContains(c, err, says)
		})
	}
	passes() // kube-controller-manager has counted
	enforce(t)

	defer apply(t, "fail-closed")
	apply(t, "fail-closed")
	passes()
	label(c, "enabled")
	refused(judged)
	apply(t, "fail-open-all")
	refused(judged)
	label(c, "disabled")
	passes()
	label(c, "")
	refused(judged)
	apply(t, "fail-closed-all")
	refused(judged)

	// The annotation is left, and kube-controller-manager recounts, as it does when the
	// static limits are edited.
	try.Must(quotas.Patch(t.Context(), "q", types.MergePatchType, []byte(`{"spec":{"hard":{"limits.cpu":"1500m"}}}`), metav1.PatchOptions{}))(t)
	passes()
	refused(judged)

	for _, overlay := range []string{"fail-closed", "fail-closed-all", "fail-open", "fail-open-all"} {
		apply(t, overlay)
		label(c, map[bool]string{true: "", false: "enabled"}[strings.HasSuffix(overlay, "-all")])
		refused(judged)
		_, err := stage.Shell(t, ".", `kubectl patch validatingadmissionpolicy headroom-guard --type=json -p '[{"op":"replace",`+
			`"path":"/spec/variables/3/expression","value":"params.metadata.annotations[\"unknown\"] == \"\""}]'`)
		require.NoError(t, err)
		if strings.HasPrefix(overlay, "fail-open") {
			passes()
		} else {
			refused("resulted in error")
		}
	}
}

// apply applies an overlay of the guard.
func apply(t *testing.T, overlay string) {
	t.Helper()
	try.Must(stage.Shell(t, "../guard", "kubectl apply -k "+overlay))(t)
}

// A quota of a thousand names costs no more than the API server lets a policy cost.
func TestCostOfTheGuard(t *testing.T) {
	c := stage.Cluster(t, "cost")
	namespace := c.Namespace()
	label(c, "enabled")
	hard := corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1")}
	for i := range 1000 {
		hard[corev1.ResourceName(fmt.Sprintf("count/%s%d.example.com", strings.Repeat("x", 40), i))] = resource.MustParse("1")
	}
	quotas := admin.CoreV1().ResourceQuotas(namespace)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q", Annotations: map[string]string{applier.OfferAnnotation: "open"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	try.Eventually(t, func(c try.T) {
		require.NoError(c, attempt(t, namespace))
		rq := try.Must(quotas.Get(t.Context(), "q", metav1.GetOptions{}))(c)
		require.Len(c, rq.Status.Hard, len(hard))
		rq.Status.Hard[corev1.ResourceLimitsCPU] = resource.MustParse("2")
		try.Must(quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{}))(c)
	})
	try.Eventually(t, func(c try.T) { require.ErrorContains(c, attempt(t, namespace), judged) })
}

// attempt asks whether a regular pod would be let in.
func attempt(t *testing.T, namespace string) error {
	_, err := admin.CoreV1().Pods(namespace).Create(t.Context(), thiefPod(nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// thiefPod is a regular pod that would take some of the room.
func thiefPod(labels map[string]string) *corev1.Pod {
	pod := scenario.NewPod("", corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")})
	pod.GenerateName, pod.Labels = "thief-", maps.Clone(labels)
	return pod
}
