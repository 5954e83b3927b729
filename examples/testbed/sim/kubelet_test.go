package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodIsBoundAndStarts(t *testing.T) {
	w := newWorld(t)
	w.newPod("p")
	w.play(time.Second - 1)
	require.Empty(t, w.pod("p").Spec.NodeName, "a step is not over")
	w.play(1)
	require.Equal(t, "a", w.pod("p").Spec.NodeName)
	require.Equal(t, corev1.PodPending, w.pod("p").Status.Phase)
	w.play(time.Second + 1)

	pod := w.pod("p")
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	require.Len(t, pod.Status.InitContainerStatuses, 2)
	require.NotNil(t, pod.Status.InitContainerStatuses[0].State.Terminated, "a plain init container has ended")
	require.NotNil(t, pod.Status.InitContainerStatuses[1].State.Running, "a sidecar runs")
	require.True(t, pod.Status.ContainerStatuses[0].Ready)
	require.Equal(t, []corev1.ConditionStatus{"True", "True", "True", "True"}, statuses(pod))

	w.play(time.Minute)
	w.pass()
	require.Empty(t, w.writes(), "nothing is due")
}

func statuses(pod *corev1.Pod) []corev1.ConditionStatus {
	var result []corev1.ConditionStatus
	for _, condition := range pod.Status.Conditions {
		result = append(result, condition.Status)
	}
	return result
}

func TestDeletedPodEndsAndThenGoes(t *testing.T) {
	w := newWorld(t)
	w.newPod("p", onNode("a"))
	w.play(2 * time.Second)
	w.deletePod("p")
	w.play(time.Second - 1)
	require.Equal(t, corev1.PodRunning, w.pod("p").Status.Phase)
	w.play(time.Second)
	_, err := w.client.CoreV1().Pods(namespace).Get(t.Context(), "p", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "%v", err)
}
