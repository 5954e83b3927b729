package main

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/quota/amounts"
)

// A tenant works in a namespace, and does not know of headroom: what is free is free to take.
type tenant struct {
	*fake.Cluster
	namespace string
	choose    chooser
}

// errNothing says that there is nothing to act on.
var errNothing = errors.New("there is nothing of that kind")

// createPod creates a pod whose one container has these limits, and the same requests. An error is quota's
// refusal, as a rule.
func (t tenant) createPod(limits corev1.ResourceList) error {
	_, err := t.Client("tenant").CoreV1().Pods(t.namespace).Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "regular-"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Resources: corev1.ResourceRequirements{Limits: limits},
		}}},
	}, metav1.CreateOptions{})
	return err
}

// steal creates a pod that takes all the cpu and memory that the quotas of the namespace leave, headroom
// included.
func (t tenant) steal() error {
	room := corev1.ResourceList{}
	for _, rq := range quotasIn(t.Cluster, t.namespace) {
		for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			for _, name := range []corev1.ResourceName{r, corev1.DefaultResourceRequestsPrefix + r, "limits." + r} {
				limit, limited := rq.Status.Hard[name]
				if !limited {
					continue
				}
				free := amounts.Minus(limit, rq.Status.Used[name])
				if least, known := room[r]; known {
					free = amounts.Min(least, free)
				}
				room[r] = free
			}
		}
	}
	for _, q := range room {
		if q.Sign() <= 0 {
			return errNothing
		}
	}
	if len(room) == 0 {
		return errNothing
	}
	return t.createPod(room)
}

// deletePod deletes one of the pods that no VMI has.
func (t tenant) deletePod() error {
	return t.deleteOne(func(pod *corev1.Pod) bool { return metav1.GetControllerOf(pod) == nil && pod.DeletionTimestamp == nil })
}

// killPod deletes one of the virt-launcher pods, as if its node had been taken away.
func (t tenant) killPod() error {
	return t.deleteOne(func(pod *corev1.Pod) bool {
		return pod.Labels[kubevirtv1.CreatedByLabel] != "" && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
	})
}

func (t tenant) deleteOne(of func(*corev1.Pod) bool) error {
	return onOne(t, t.Snapshot(t.namespace).Pods, of, func(pod *corev1.Pod) error {
		return t.Client("tenant").CoreV1().Pods(t.namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{})
	})
}

// deleteVMI deletes one of the VMIs, whatever it is doing.
func (t tenant) deleteVMI() error {
	return onOne(t, t.Snapshot(t.namespace).VMIs, func(*kubevirtv1.VirtualMachineInstance) bool { return true },
		func(vmi *kubevirtv1.VirtualMachineInstance) error { return t.DeleteVMI(t.namespace, vmi.Name) })
}

// migrate migrates one of the running VMIs.
func (t tenant) migrate(name string, outcome fake.Outcome) error {
	return onOne(t, t.Snapshot(t.namespace).VMIs,
		func(vmi *kubevirtv1.VirtualMachineInstance) bool {
			return vmi.IsRunning() && vmi.DeletionTimestamp == nil
		},
		func(vmi *kubevirtv1.VirtualMachineInstance) error {
			return t.Migrate(t.namespace, name, vmi.Name, outcome)
		})
}

// abort aborts one of the migrations that have not ended.
func (t tenant) abort() error {
	return onOne(t, t.Snapshot(t.namespace).Migrations,
		func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
			return !m.IsFinal() && m.DeletionTimestamp == nil
		},
		func(m *kubevirtv1.VirtualMachineInstanceMigration) error { return t.Abort(t.namespace, m.Name) })
}

// quotasIn returns the quotas of a namespace.
func quotasIn(c *fake.Cluster, namespace string) []corev1.ResourceQuota {
	quotas, err := c.Client("admin").CoreV1().ResourceQuotas(namespace).List(context.Background(), metav1.ListOptions{})
	must(err)
	return quotas.Items
}

func deleteQuota(c *fake.Cluster, namespace, name string) error {
	return c.Client("tenant").CoreV1().ResourceQuotas(namespace).Delete(context.Background(), name, metav1.DeleteOptions{})
}
