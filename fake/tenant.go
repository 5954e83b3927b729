package fake

import (
	"context"
	"errors"
	"slices"

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
	return deleteOne(t, func(pod *corev1.Pod) bool { return metav1.GetControllerOf(pod) == nil && pod.DeletionTimestamp == nil })
}

// KillPod deletes one of the virt-launcher pods, as if its node had been taken away.
func (t *Tenant) KillPod() error {
	return deleteOne(t, func(pod *corev1.Pod) bool { return pod.Labels[kubevirtv1.CreatedByLabel] != "" && !ended(pod) })
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
	return deleteOne(t, func(*kubevirtv1.VirtualMachineInstance) bool { return true })
}

// Migrate migrates one of the running VMIs.
func (t *Tenant) Migrate(outcome Outcome) error {
	vmi, ok := pick(t, func(vmi *kubevirtv1.VirtualMachineInstance) bool {
		return vmi.IsRunning() && vmi.DeletionTimestamp == nil
	})
	if !ok {
		return errNothing
	}
	return t.cluster.Migrate(t.namespace, "migrate-"+t.cluster.suffix(), vmi.Name, outcome)
}

// Abort aborts one of the migrations that have not ended.
func (t *Tenant) Abort() error {
	return deleteOne(t, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool {
		return !m.IsFinal() && m.DeletionTimestamp == nil
	})
}

// pick returns one of those of the namespace, drawn from the seed; false if there is none.
func pick[T object](t *Tenant, of func(T) bool) (one T, ok bool) {
	from := slices.DeleteFunc(all[T](&t.cluster.store, t.namespace), func(o T) bool { return !of(o) })
	if len(from) == 0 {
		return one, false
	}
	return from[t.cluster.random.IntN(len(from))], true
}

func deleteOne[T object](t *Tenant, of func(T) bool) error {
	o, ok := pick(t, of)
	if !ok {
		return errNothing
	}
	return t.cluster.remove(t.user, kindOf(o), t.namespace, o.GetName(), metav1.DeleteOptions{})
}
