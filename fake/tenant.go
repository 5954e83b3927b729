package fake

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A Tenant works in a namespace, and does not know of headroom: whatever is free is
// taken to be free.
type Tenant struct {
	cluster   *Cluster
	namespace string
	user      string
}

// Tenant returns the tenant of namespace.
func (c *Cluster) Tenant(namespace string) *Tenant {
	return &Tenant{cluster: c, namespace: namespace, user: "tenant-" + namespace}
}

// errNothing says that there is nothing to act on.
var errNothing = errors.New("there is nothing of that kind")

// CreatePod creates a pod whose one container has these limits, and the same requests. An
// error is quota's refusal, as a rule.
func (t *Tenant) CreatePod(limits corev1.ResourceList) error {
	_, err := t.cluster.Client(t.user).CoreV1().Pods(t.namespace).Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "regular-"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Resources: corev1.ResourceRequirements{Limits: limits},
		}}},
	}, metav1.CreateOptions{})
	return err
}

// Steal creates a pod that takes all the cpu and memory that the quotas of the namespace
// leave, headroom included.
func (t *Tenant) Steal() error {
	room := corev1.ResourceList{}
	for _, rq := range all[*corev1.ResourceQuota](&t.cluster.store, t.namespace) {
		for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			for _, name := range []corev1.ResourceName{r, corev1.DefaultResourceRequestsPrefix + r, "limits." + r} {
				limit, limited := rq.Status.Hard[name]
				if !limited {
					continue
				}
				free := limit.DeepCopy()
				free.Sub(rq.Status.Used[name])
				if least, known := room[r]; !known || free.Cmp(least) < 0 {
					room[r] = free
				}
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
	return t.CreatePod(room)
}

// DeletePod deletes one of the pods that no VMI has.
func (t *Tenant) DeletePod() error {
	var own []*corev1.Pod
	for _, pod := range all[*corev1.Pod](&t.cluster.store, t.namespace) {
		if metav1.GetControllerOf(pod) == nil && pod.DeletionTimestamp == nil {
			own = append(own, pod)
		}
	}
	pod, ok := pick(t.cluster, own)
	if !ok {
		return errNothing
	}
	return t.cluster.remove(t.user, Pods, pod.Namespace, pod.Name, metav1.DeleteOptions{})
}

// KillPod deletes one of the virt-launcher pods, as if its node had been taken away.
func (t *Tenant) KillPod() error {
	var launchers []*corev1.Pod
	for _, pod := range all[*corev1.Pod](&t.cluster.store, t.namespace) {
		if pod.Labels[kubevirtv1.CreatedByLabel] != "" && !ended(pod) {
			launchers = append(launchers, pod)
		}
	}
	pod, ok := pick(t.cluster, launchers)
	if !ok {
		return errNothing
	}
	return t.cluster.remove(t.user, Pods, pod.Namespace, pod.Name, metav1.DeleteOptions{})
}

// EditQuota changes spec.hard of a quota, the static limits.
func (t *Tenant) EditQuota(name string, change func(hard corev1.ResourceList)) error {
	ctx, client := context.Background(), t.cluster.Client(t.user).CoreV1().ResourceQuotas(t.namespace)
	rq, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	change(rq.Spec.Hard)
	_, err = client.Update(ctx, rq, metav1.UpdateOptions{})
	return err
}

// DeleteQuota deletes a quota.
func (t *Tenant) DeleteQuota(name string) error {
	return t.cluster.remove(t.user, ResourceQuotas, t.namespace, name, metav1.DeleteOptions{})
}

// DeleteVMI deletes one of the VMIs, whatever it is doing.
func (t *Tenant) DeleteVMI() error {
	vmi, ok := pick(t.cluster, all[*kubevirtv1.VirtualMachineInstance](&t.cluster.store, t.namespace))
	if !ok {
		return errNothing
	}
	return t.cluster.remove(t.user, VMIs, vmi.Namespace, vmi.Name, metav1.DeleteOptions{})
}

// Migrate migrates one of the running VMIs.
func (t *Tenant) Migrate(outcome Outcome) error {
	var running []*kubevirtv1.VirtualMachineInstance
	for _, vmi := range all[*kubevirtv1.VirtualMachineInstance](&t.cluster.store, t.namespace) {
		if vmi.IsRunning() && vmi.DeletionTimestamp == nil {
			running = append(running, vmi)
		}
	}
	vmi, ok := pick(t.cluster, running)
	if !ok {
		return errNothing
	}
	return t.cluster.Migrate(t.namespace, "migrate-"+t.cluster.suffix(), vmi.Name, outcome)
}

// Abort aborts one of the migrations that have not ended.
func (t *Tenant) Abort() error {
	var unfinished []*kubevirtv1.VirtualMachineInstanceMigration
	for _, m := range all[*kubevirtv1.VirtualMachineInstanceMigration](&t.cluster.store, t.namespace) {
		if !m.IsFinal() && m.DeletionTimestamp == nil {
			unfinished = append(unfinished, m)
		}
	}
	m, ok := pick(t.cluster, unfinished)
	if !ok {
		return errNothing
	}
	return t.cluster.remove(t.user, Migrations, m.Namespace, m.Name, metav1.DeleteOptions{})
}

// pick returns one of them, drawn from the seed; false if there is none.
func pick[T any](c *Cluster, from []T) (T, bool) {
	if len(from) == 0 {
		var none T
		return none, false
	}
	return from[c.random.IntN(len(from))], true
}
