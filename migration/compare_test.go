package migration

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// Of the migrations that are over as many are removed as the difference covers, and no others. A pod
// that runs no virtual machine, or that a quota does not select, makes no difference.
func TestCompareRemovesWhatTheDifferenceCovers(t *testing.T) {
	now := time.Now()
	limit := func(gib int) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse(fmt.Sprintf("%dGi", gib))}
	}
	snapshot := Snapshot{Now: now}
	for i := range 4 {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: fmt.Sprint("pod", i)}}
		pod.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
		}}}
		if i < 3 {
			vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprint("vmi", i))}}
			pod.Labels = map[string]string{kubevirtv1.CreatedByLabel: string(vmi.UID)}
			pod.OwnerReferences = []metav1.OwnerReference{
				*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind),
			}
		}
		snapshot.Pods = append(snapshot.Pods, pod)
	}
	for missing, want := range [][]types.UID{{"over0", "over1", "runs"}, {"over1", "runs"}, {"runs"}, {"runs"}} {
		quotas := []*corev1.ResourceQuota{
			{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Status: corev1.ResourceQuotaStatus{Used: limit(3 - missing)}},
			{ObjectMeta: metav1.ObjectMeta{Name: "jobs"}, Status: corev1.ResourceQuotaStatus{Used: limit(0)}},
		}
		quotas[1].Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}
		report := Report{InFlight: []quota.Migration{
			{UID: "over0", Surge: limit(1), State: quota.Charged, Over: true},
			{UID: "over1", Surge: limit(1), State: quota.Charged, Over: true},
			{UID: "runs", Surge: limit(1), State: quota.Charged},
		}}
		report.compare(snapshot, quotas, now.Add(-behindTime))
		var left []types.UID
		for _, m := range report.InFlight {
			left = append(left, m.UID)
		}
		require.Equal(t, want, left, "%d GiB", missing)
		require.NotContains(t, report.Behind, "jobs")
		require.Equal(t, missing > 0, len(report.Behind) > 0)
	}
}
