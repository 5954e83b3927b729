package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/testbed/scenario"
)

// A Thief is a tenant's workload that grabs whatever room it sees in its namespace: it
// reads the quotas again and again, and creates a pod that takes all the cpu and memory
// that is left. It keeps each pod for some time.
type Thief struct {
	client    kubernetes.Interface
	namespace string
	hold      time.Duration
	look      time.Duration // how long it waits until it looks again

	mu   sync.Mutex
	loot Loot
}

// Loot is what a thief got. Memory is that of limits.memory.
type Loot struct {
	Pods    int
	Refused int     // pods that it was not let have, for whatever reason
	Peak    int64   // bytes at the same time
	Stolen  float64 // byte seconds
	Longest time.Duration
}

func (l Loot) String() string {
	return fmt.Sprintf("%d pods (%d refused), %.2f GiB at most, %.1f GiB·s in all, the longest for %v",
		l.Pods, l.Refused, float64(l.Peak)/(1<<30), l.Stolen/(1<<30), l.Longest.Round(time.Millisecond))
}

// NewThief returns a thief that reaches the API server as config says, and keeps each of
// its pods for hold. It needs the rights of [GrantThief].
func NewThief(config *rest.Config, namespace string, hold time.Duration) (*Thief, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Thief{client: client, namespace: namespace, hold: hold, look: look}, nil
}

// GrantThief gives user the rights of a tenant who runs pods in namespace.
func GrantThief(ctx context.Context, admin kubernetes.Interface, namespace, user string) error {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"resourcequotas"}, Verbs: []string{"list"}},
	}}
	if _, err := admin.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := admin.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	return err
}

// look is how long a thief waits until it looks again.
const look = 5 * time.Millisecond

// Run steals until ctx is done, gives back what it has, and tells what it got.
func (t *Thief) Run(ctx context.Context) (Loot, error) {
	var held int64
	var group sync.WaitGroup
	for wait(ctx, t.look) == nil {
		room, err := t.room(ctx)
		if err != nil {
			if ctx.Err() != nil || apierrors.IsNotFound(err) {
				break
			}
			continue // the API server is away, or busy
		}
		if room == nil {
			continue
		}
		pod, err := t.client.CoreV1().Pods(t.namespace).Create(ctx, grab(room), metav1.CreateOptions{})
		if err != nil {
			t.loot.Refused++
			continue
		}
		memory := room[corev1.ResourceMemory]
		bytes, _ := memory.AsInt64()
		t.mu.Lock()
		held += bytes
		t.loot.Pods++
		t.loot.Peak = max(t.loot.Peak, held)
		t.mu.Unlock()
		group.Go(func() {
			kept := t.keep(ctx, pod.Name)
			t.mu.Lock()
			defer t.mu.Unlock()
			held -= bytes
			t.loot.Stolen += float64(bytes) * kept.Seconds()
			t.loot.Longest = max(t.loot.Longest, kept)
		})
	}
	group.Wait()
	return t.loot, nil
}

// room returns what all quotas leave, nil if that is nothing.
func (t *Thief) room(ctx context.Context) (corev1.ResourceList, error) {
	quotas, err := t.client.CoreV1().ResourceQuotas(t.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	room := corev1.ResourceList{}
	for _, rq := range quotas.Items {
		for kind, limit := range map[corev1.ResourceName]corev1.ResourceName{
			corev1.ResourceCPU: corev1.ResourceLimitsCPU, corev1.ResourceMemory: corev1.ResourceLimitsMemory,
		} {
			hard, limited := rq.Status.Hard[limit]
			if !limited {
				continue
			}
			free := hard.DeepCopy()
			free.Sub(rq.Status.Used[limit])
			if least, known := room[kind]; !known || free.Cmp(least) < 0 {
				room[kind] = free
			}
		}
	}
	for _, free := range room {
		if free.Sign() <= 0 {
			return nil, nil
		}
	}
	if len(room) == 0 {
		return nil, nil
	}
	return room, nil
}

func grab(room corev1.ResourceList) *corev1.Pod {
	pod := scenario.NewPod("", room)
	pod.GenerateName = "thief-"
	// A deleted pod is to be gone at once.
	pod.Spec.TerminationGracePeriodSeconds = new(int64)
	for _, list := range []corev1.ResourceList{pod.Spec.Containers[0].Resources.Requests} {
		for name := range list {
			list[name] = resource.Quantity{}
		}
	}
	return pod
}

// keep keeps a pod, deletes it, and returns for how long it was there.
func (t *Thief) keep(ctx context.Context, name string) time.Duration {
	from := time.Now()
	_ = wait(ctx, t.hold) // or until the thief is stopped
	ctx = context.WithoutCancel(ctx)
	for range 100 {
		err := t.client.CoreV1().Pods(t.namespace).Delete(ctx, name, *metav1.NewDeleteOptions(0))
		if err == nil || apierrors.IsNotFound(err) {
			break
		}
		_ = wait(ctx, 100*time.Millisecond)
	}
	return time.Since(from)
}
