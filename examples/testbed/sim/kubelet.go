package sim

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// playPod plays scheduler and kubelet for one pod.
func (s *Simulator) playPod(ctx context.Context, now *view, pod *corev1.Pod) error {
	switch {
	case pod.Spec.NodeName == "":
		if pod.DeletionTimestamp != nil {
			return nil
		}
		return s.bind(ctx, now, pod)
	case !now.alive(pod.Spec.NodeName):
		return nil
	case pod.DeletionTimestamp != nil:
		return s.kill(ctx, pod)
	case pod.Status.Phase == corev1.PodPending && s.pace.over(s.step, step{what: "start", of: pod.UID}):
		return s.run(ctx, pod)
	}
	return nil
}

// run says that all containers of a pod run.
func (s *Simulator) run(ctx context.Context, pod *corev1.Pod) error {
	now := metav1.NewTime(s.pace.now())
	status := &pod.Status
	status.Phase = corev1.PodRunning
	status.StartTime = &now
	status.PodIP = "10.1.0.1"
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	status.Conditions = nil
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	status.InitContainerStatuses, status.ContainerStatuses = nil, nil
	for _, container := range pod.Spec.InitContainers {
		state := ended(now)
		if container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			state = running(now)
		}
		status.InitContainerStatuses = append(status.InitContainerStatuses, containerStatus(container, state))
	}
	for _, container := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, containerStatus(container, running(now)))
	}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// finish says that all containers of a pod have ended well.
func (s *Simulator) finish(ctx context.Context, pod *corev1.Pod) error {
	if terminal(pod) {
		return nil
	}
	pod = pod.DeepCopy()
	now := metav1.NewTime(s.pace.now())
	pod.Status.Phase = corev1.PodSucceeded
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			statuses[i].Ready = false
			statuses[i].State = ended(now)
		}
	}
	for i, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady || condition.Type == corev1.ContainersReady {
			pod.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// kill ends a pod that somebody deleted, and then removes it.
func (s *Simulator) kill(ctx context.Context, pod *corev1.Pod) error {
	if !s.pace.over(s.step, step{what: "kill", of: pod.UID}) {
		return nil
	}
	if !terminal(pod) {
		return s.finish(ctx, pod)
	}
	options := immediately
	options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	return s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
}

func running(now metav1.Time) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
}

func ended(now metav1.Time) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: now}}
}

func containerStatus(container corev1.Container, state corev1.ContainerState) corev1.ContainerStatus {
	started := true
	return corev1.ContainerStatus{
		Name:    container.Name,
		Image:   container.Image,
		ImageID: container.Image + "@sha256:0000000000000000000000000000000000000000000000000000000000000001",
		State:   state,
		Ready:   true,
		Started: &started,

		AllocatedResources: container.Resources.Requests,
		Resources:          container.Resources.DeepCopy(),
	}
}
