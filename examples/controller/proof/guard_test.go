package proof

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// The thief gets all the room without the guard and, one pod after the other, none with
// it. Many at once get some, at most what the raise is; how much is printed.
func TestThief(t *testing.T) {
	thief := exec.CommandContext(t.Context(), filepath.Join(programs, "thief"))
	thief.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig())
	thief.Stderr = os.Stderr
	output, err := thief.Output()
	require.NoError(t, err)
	t.Logf("\n%s", output)
	stolen := map[string]int{}
	for line := range strings.Lines(string(output)) {
		if row := regexp.MustCompile(`^(on|off) +(.*?) +(\d+)\n$`).FindStringSubmatch(line); row != nil {
			stolen[row[1]+": "+row[2]], err = strconv.Atoi(row[3])
			require.NoError(t, err)
		}
	}
	require.Len(t, stolen, 10)
	const all = 40
	require.Less(t, stolen["on: 10 at once"], all)
	require.LessOrEqual(t, stolen["on: 60 at once"], all)
	delete(stolen, "on: 10 at once")
	delete(stolen, "on: 60 at once")
	require.Equal(t, map[string]int{
		"off: one pod after the other":                all,
		"off: the same with forged labels":            all,
		"off: 10 at once":                             all,
		"off: 60 at once":                             all,
		"off: KubeVirt's controller, for a migration": all,
		"on: one pod after the other":                 0,
		"on: the same with forged labels":             0,
		"on: KubeVirt's controller, for a migration":  all,
	}, stolen)
}

// Headroom has raised a quota, and virt-controller is away: regular pods do not get the
// room, whatever they say they are. It comes back, and its target pod does.
func TestGuardOfARaise(t *testing.T) {
	r := newReplica(t, "replica", "--guard")
	s := newScene(t, 1)
	_, err := admin.CoreV1().Namespaces().Patch(t.Context(), s.namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"headroom.vmquota.io/guard":"enabled"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	s.disable(true)
	s.migrate(0, "")
	s.refused(0)
	require.NoError(t, shared.Kill(bed.VirtController))
	s.disable(false)
	s.raised()
	require.NotEmpty(t, s.quota(t).Annotations[applier.GuardAnnotation])

	vmim, err := s.vmims.Get(t.Context(), "m0")
	require.NoError(t, err)
	forged := map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": string(vmim.UID)}
	for name, labels := range map[string]map[string]string{"no labels": nil, "forged labels": forged} {
		// The guard sees the quota in a cache; until it does, the quota's own admission may
		// let a pod pass, so the pods of this loop are not stored.
		eventually(t, func(c *assert.CollectT) {
			_, err := admin.CoreV1().Pods(s.namespace).Create(t.Context(), thiefPod(labels), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			require.True(c, apierrors.IsForbidden(err), "%s: %v", name, err)
			require.ErrorContains(c, err, "ValidatingAdmissionPolicy 'headroom-guard'", name)
			require.ErrorContains(c, err, "is raised for live migrations only", name)
		})
		_, err := admin.CoreV1().Pods(s.namespace).Create(t.Context(), thiefPod(labels), metav1.CreateOptions{})
		require.True(t, apierrors.IsForbidden(err), "%s: %v", name, err)
	}

	require.NoError(t, shared.Restart(t.Context(), bed.VirtController))
	s.await(0, kubevirtv1.MigrationSucceeded)
	s.settled()
	requireAllowed(t, r)
}

// The guard is on where the namespace has the label, and what it cannot judge fails as the
// overlay says that is applied.
func TestSwitchesOfTheGuard(t *testing.T) {
	namespace, err := shared.NewNamespace(t.Context(), "switches-")
	require.NoError(t, err)
	quotas := admin.CoreV1().ResourceQuotas(namespace)
	_, err = quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{cpu: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	publish := func(most string) {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{applier.GuardAnnotation: `{"limits.cpu":"` + most + `"}`}}})
		require.NoError(t, err)
		_, err = quotas.Patch(t.Context(), "q", types.MergePatchType, patch, metav1.PatchOptions{})
		require.NoError(t, err)
	}
	passes := func() {
		t.Helper()
		eventually(t, func(c *assert.CollectT) { require.NoError(c, try(t, namespace)) })
	}
	refused := func(says string) {
		t.Helper()
		eventually(t, func(c *assert.CollectT) {
			err := try(t, namespace)
			require.ErrorContains(c, err, "headroom-guard")
			require.ErrorContains(c, err, says)
		})
	}
	const judged = "is raised for live migrations only"

	publish("0")
	passes()
	_, err = admin.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"headroom.vmquota.io/guard":"enabled"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	refused(judged)

	defer kubectl(t, "apply", "-k", "../guard/fail-closed")
	kubectl(t, "apply", "-k", "../guard/fail-closed")
	publish("many")
	refused("resulted in error")
	kubectl(t, "apply", "-k", "../guard/fail-open")
	passes()
	publish("0")
	refused(judged)
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
