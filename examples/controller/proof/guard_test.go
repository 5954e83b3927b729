package proof

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/ledger/applier"
)

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	return string(data)
}

// The thief gets room without the guard, and none with it. The migration does, with the
// guard too. Where room comes with no announcement, what is stolen is printed.
func TestThief(t *testing.T) {
	thief := exec.CommandContext(t.Context(), filepath.Join(programs, "thief"))
	thief.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig())
	thief.Stderr = os.Stderr
	output, err := thief.Output()
	require.NoError(t, err)
	t.Logf("\n%s", output)
	rows := 0
	for line := range strings.Lines(string(output)) {
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
	label(t, s.namespace, "enabled")
	s.disable(true)
	s.migrate(0, "")
	s.refused(0)
	require.NoError(t, shared.Kill(bed.VirtController))
	vmim, err := s.vmims.Get(t.Context(), "m0")
	require.NoError(t, err)
	forged := map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": string(vmim.UID)}
	s.disable(false)

	// The offer lapses, and is made again, so these pods come before, in and after it.
	refused := map[string]int{}
	eventually(t, func(c *assert.CollectT) {
		for name, labels := range map[string]map[string]string{"no labels": nil, "forged labels": forged} {
			_, err := admin.CoreV1().Pods(s.namespace).Create(t.Context(), thiefPod(labels), metav1.CreateOptions{})
			require.True(t, apierrors.IsForbidden(err), "%s: %v", name, err)
			if strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'headroom-guard'") {
				require.ErrorContains(t, err, judged, name)
				refused[name]++
			}
		}
		require.Len(c, refused, 2)
	})
	t.Log("refused by the guard:", refused)

	require.NoError(t, shared.Restart(t.Context(), bed.VirtController))
	s.await(0, kubevirtv1.MigrationSucceeded)
	s.settled()
	requireAllowed(t, r)
}

const judged = "has room for a live migration at the moment, and for nothing else: try again in a moment"

// label switches the guard in namespace.
func label(t *testing.T, namespace, value string) {
	t.Helper()
	_, err := admin.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"headroom.vmquota.io/guard":"`+value+`"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
}

// The guard is on where the overlay that is applied and the label of the namespace say so,
// and what it cannot judge fails as the overlay says. It ends with the raise, not with the
// annotation.
func TestSwitchesOfTheGuard(t *testing.T) {
	namespace, err := shared.NewNamespace(t.Context(), "switches-")
	require.NoError(t, err)
	quotas := admin.CoreV1().ResourceQuotas(namespace)
	_, err = quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{cpu: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	passes := func() {
		t.Helper()
		eventually(t, func(c *assert.CollectT) { require.NoError(c, try(t, namespace)) })
	}
	enforce := func(c require.TestingT) {
		rq, err := quotas.Get(t.Context(), "q", metav1.GetOptions{})
		require.NoError(c, err)
		rq.Annotations = map[string]string{applier.OfferAnnotation: "open"}
		rq.Status.Hard = corev1.ResourceList{cpu: resource.MustParse("3")}
		_, err = quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{})
		require.NoError(c, err)
	}
	refused := func(says string) {
		t.Helper()
		eventually(t, func(c *assert.CollectT) {
			enforce(c) // kube-controller-manager may have recounted
			err := try(t, namespace)
			require.ErrorContains(c, err, "headroom-guard")
			require.ErrorContains(c, err, says)
		})
	}
	passes() // kube-controller-manager has counted
	enforce(t)

	defer kubectl(t, "apply", "-k", "../guard/fail-closed")
	kubectl(t, "apply", "-k", "../guard/fail-closed")
	passes()
	label(t, namespace, "enabled")
	refused(judged)
	kubectl(t, "apply", "-k", "../guard/fail-open-all")
	refused(judged)
	label(t, namespace, "disabled")
	passes()
	label(t, namespace, "")
	refused(judged)
	kubectl(t, "apply", "-k", "../guard/fail-closed-all")
	refused(judged)

	// The annotation is left, and kube-controller-manager recounts, as it does when the
	// static limits are edited.
	_, err = quotas.Patch(t.Context(), "q", types.MergePatchType, []byte(`{"spec":{"hard":{"limits.cpu":"1500m"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	passes()
	refused(judged)

	for _, overlay := range []string{"fail-closed", "fail-closed-all", "fail-open", "fail-open-all"} {
		kubectl(t, "apply", "-k", "../guard/"+overlay)
		label(t, namespace, map[bool]string{true: "", false: "enabled"}[strings.HasSuffix(overlay, "-all")])
		refused(judged)
		kubectl(t, "patch", "validatingadmissionpolicy", "headroom-guard", "--type=json",
			"-p", `[{"op":"replace","path":"/spec/variables/3/expression","value":"params.metadata.annotations['unknown'] == ''"}]`)
		if strings.HasPrefix(overlay, "fail-open") {
			passes()
		} else {
			refused("resulted in error")
		}
	}
}

// A quota of a thousand names costs no more than the API server lets a policy cost.
func TestCostOfTheGuard(t *testing.T) {
	namespace, err := shared.NewNamespace(t.Context(), "cost-")
	require.NoError(t, err)
	label(t, namespace, "enabled")
	hard := corev1.ResourceList{cpu: resource.MustParse("1")}
	for i := range 1000 {
		hard[corev1.ResourceName(fmt.Sprintf("count/%s%d.example.com", strings.Repeat("x", 40), i))] = resource.MustParse("1")
	}
	quotas := admin.CoreV1().ResourceQuotas(namespace)
	_, err = quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q", Annotations: map[string]string{applier.OfferAnnotation: "open"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, func(c *assert.CollectT) {
		require.NoError(c, try(t, namespace))
		rq, err := quotas.Get(t.Context(), "q", metav1.GetOptions{})
		require.NoError(c, err)
		require.Len(c, rq.Status.Hard, len(hard))
		rq.Status.Hard[cpu] = resource.MustParse("2")
		_, err = quotas.UpdateStatus(t.Context(), rq, metav1.UpdateOptions{})
		require.NoError(c, err)
	})
	eventually(t, func(c *assert.CollectT) { require.ErrorContains(c, try(t, namespace), judged) })
}

// try asks whether a regular pod would be let in.
func try(t *testing.T, namespace string) error {
	_, err := admin.CoreV1().Pods(namespace).Create(t.Context(), thiefPod(nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// thiefPod is a regular pod that would take some of the room.
func thiefPod(labels map[string]string) *corev1.Pod {
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "thief-", Labels: maps.Clone(labels)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "registry.test/pause", Resources: corev1.ResourceRequirements{Limits: limits},
		}}},
	}
}
