package faults

import (
	"bytes"
	"context"
	_ "embed" // for the rights
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota/amounts"
)

// steal drains all three nodes of a fleet, one after the other, while a thief is at work in its
// namespace. The drains come through all the same.
func steal(t try.T, s *onbed.Stage, o Options) string {
	return stealFrom(t, s, o, s.Fleet(t, "thief", o.VMs, onbed.FleetOptions{Linger: 2 * time.Second}))
}

// stealGuarded is steal with the guard.
func stealGuarded(t try.T, s *onbed.Stage, o Options) string {
	installGuard(t, s, o.Guard)
	return stealFrom(t, s, o, s.Fleet(t, "thief", o.VMs, onbed.FleetOptions{Linger: 2 * time.Second, Prepared: guard}))
}

func stealFrom(t try.T, s *onbed.Stage, o Options, f *onbed.Fleet) string {
	got := stealWhile(t, s, f, o.Hold, look, func() {
		for i := range 3 {
			f.Evacuate(node(i))
		}
	})
	f.AwaitRest()
	require.Positive(t, got.pods+got.refused, "the thief did not even try")
	return got.String()
}

// mint lets a tenant who fills his quota give his virtual machine more memory than is left, so
// that KubeVirt tries for so long to create a target pod that can never come; and ten migrate,
// for each of three thieves that react sooner or later. The first keeps what he gets, the others
// for two seconds. There is no guard.
func mint(t try.T, s *onbed.Stage, _ Options) (text string) {
	f := s.Fleet(t, "mint", 1, onbed.FleetOptions{})
	got := stealWhile(t, s, f, time.Hour, look, func() {
		f.HotPlug(scenario.HotPlug{VM: f.VMs[0], Memory: *resource.NewQuantity(2<<30, resource.BinarySI)})
		try.Sleep(t, 40*time.Second)
	})
	text = fmt.Sprintf("\n  hot-plugs his VM: %v", got)
	for _, pause := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond} {
		f := s.Fleet(t, "react", 10, onbed.FleetOptions{})
		got := stealWhile(t, s, f, 2*time.Second, pause, func() {
			f.Migrate(10, "")
			f.Await("all have migrated", onbed.AllOver)
		})
		text += fmt.Sprintf("\n  looks every %v: %v", pause, got)
	}
	return text
}

// look is how long a thief waits until it looks again.
const look = 5 * time.Millisecond

// stealWhile lets a thief, who looks again after pause and keeps what he gets for hold, work in
// the namespace of f until do returns. After each offer that a thief takes, the library waits
// twice as long until it offers room again, up to a minute: do has to be patient.
func stealWhile(t try.T, s *onbed.Stage, f *onbed.Fleet, hold, pause time.Duration, do func()) *loot {
	s.Bed.Create(t, bytes.ReplaceAll(tenantRights, []byte("NAMESPACE"), []byte(f.Namespace())))
	client := try.Must(kubernetes.NewForConfig(s.Bed.User(t, "headroom-testbed-thief")))(t)
	th := &thief{client: client, namespace: f.Namespace(), hold: hold, look: pause}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := try.Go(t, func(try.T) { th.run(ctx) })
	do()
	stop()
	ended()
	return &th.loot
}

//go:embed tenant.yaml
var tenantRights []byte

// A thief is a tenant's workload that grabs whatever room it sees in its namespace: it
// reads the quotas again and again, and creates a pod that takes all the cpu and memory
// that is left. It keeps each pod for some time.
type thief struct {
	client     kubernetes.Interface
	namespace  string
	hold, look time.Duration

	mu   sync.Mutex
	loot loot
}

// Loot is what a thief got. Memory is that of limits.memory.
type loot struct {
	pods    int
	refused int     // pods that it was not let have, for whatever reason
	held    int64   // bytes now
	peak    int64   // bytes at the same time
	stolen  float64 // byte seconds
	longest time.Duration
}

func (l *loot) String() string {
	return fmt.Sprintf("%d pods (%d refused), %.2f GiB at most, %.1f GiB·s in all, the longest for %v",
		l.pods, l.refused, float64(l.peak)/(1<<30), l.stolen/(1<<30), l.longest.Round(time.Millisecond))
}

// run steals until ctx is done, and gives back what it has.
func (t *thief) run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	for ctx.Err() == nil {
		pause(ctx, t.look)
		room, err := t.room(ctx)
		if err != nil || room == nil {
			continue // the API server is away, or busy
		}
		pod, err := t.client.CoreV1().Pods(t.namespace).Create(ctx, grab(room), metav1.CreateOptions{})
		if err != nil {
			t.loot.refused++
			continue
		}
		memory := room[corev1.ResourceMemory]
		bytes, _ := memory.AsInt64()
		t.mu.Lock()
		t.loot.pods++
		t.loot.held += bytes
		t.loot.peak = max(t.loot.peak, t.loot.held)
		t.mu.Unlock()
		group.Go(func() {
			kept := t.keep(ctx, pod.Name)
			t.mu.Lock()
			defer t.mu.Unlock()
			t.loot.held -= bytes
			t.loot.stolen += float64(bytes) * kept.Seconds()
			t.loot.longest = max(t.loot.longest, kept)
		})
	}
}

// room returns what the quotas leave, nil if that is nothing.
func (t *thief) room(ctx context.Context) (corev1.ResourceList, error) {
	quotas, err := t.client.CoreV1().ResourceQuotas(t.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	room := corev1.ResourceList{}
	for _, rq := range quotas.Items {
		room = onContainer(amounts.Each(rq.Status.Hard, rq.Status.Used, amounts.Minus))
		for _, free := range room {
			if free.IsZero() {
				return nil, nil
			}
		}
	}
	return room, nil
}

// grab returns a pod that takes the room. Deleted, it is gone at once.
func grab(room corev1.ResourceList) *corev1.Pod {
	pod := scenario.NewPod("", room)
	pod.GenerateName = "thief-"
	pod.Spec.TerminationGracePeriodSeconds = new(int64)
	for name := range room {
		pod.Spec.Containers[0].Resources.Requests[name] = resource.Quantity{}
	}
	return pod
}

// keep keeps a pod, deletes it, and returns for how long it was there.
func (t *thief) keep(ctx context.Context, name string) time.Duration {
	from := time.Now()
	pause(ctx, t.hold) // or until the thief is stopped
	ctx = context.WithoutCancel(ctx)
	for range 100 {
		err := t.client.CoreV1().Pods(t.namespace).Delete(ctx, name, *metav1.NewDeleteOptions(0))
		if err == nil || apierrors.IsNotFound(err) {
			break
		}
		pause(ctx, 100*time.Millisecond)
	}
	return time.Since(from)
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// guard switches the guard on in the namespace of a fleet.
func guard(f *onbed.Fleet) { f.PatchNamespace("labels", "headroom.vmquota.io/guard", "enabled") }

// installGuard installs the guard, of which the policy and its binding are in folder, and
// returns when the API server goes by it, which that says nowhere: where a namespace says so,
// and a quota that room is open for a migration. This one keeps the library from ending that.
func installGuard(t try.T, s *onbed.Stage, folder string) {
	for _, name := range []string{"policy.yaml", "binding.yaml"} {
		s.Bed.Create(t, try.Must(os.ReadFile(filepath.Join(folder, name)))(t))
	}
	f := s.Fleet(t, "guard", 0, onbed.FleetOptions{
		Quota: metav1.ObjectMeta{Name: onbed.FleetQuota, Annotations: map[string]string{applier.OfferAnnotation: "trial", applier.DisabledAnnotation: "true"}},
		Room:  1,
	})
	try.Eventually(t, func(t try.T) {
		rq := f.Quota(t)
		rq.Status.Hard = onbed.Charge(2)
		try.Must(s.Client.CoreV1().ResourceQuotas(f.Namespace()).UpdateStatus(t.Context(), rq, metav1.UpdateOptions{}))(t)
	})
	guard(f)
	pod := grab(corev1.ResourceList{corev1.ResourceCPU: resource.Quantity{}, corev1.ResourceMemory: resource.Quantity{}})
	try.Eventually(t, func(t try.T) {
		_, err := s.Client.CoreV1().Pods(f.Namespace()).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.ErrorContains(t, err, "headroom-guard")
	})
}
