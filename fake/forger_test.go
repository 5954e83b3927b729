package fake_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/quota"
)

var (
	forgerSteps = flag.Int("forger", 30000, "how many steps of simulated clusters TestForger plays")
	forgerSeed  = flag.Uint64("forger-seed", 0, "the first seed of TestForger")
)

// A forger is a tenant with Kubernetes' role edit and KubeVirt's: he creates, labels and deletes
// pods, claims of both kinds, events and migrations, and has them say whatever helps him. The
// judge knows what he has made, and shares no code with the library: status.hard may be above
// spec.hard by four VMs for each migration that there is, and by nothing if there is none.
type forger struct {
	*testing.T
	*fake.Cluster
	kubernetes.Interface
	random *rand.Rand
	seed   uint64
	forged map[types.UID]bool
	named  int
	busy   []time.Time // for each number of migrations, when there last were so many
}

const forgerVMs = 3

func newForger(t *testing.T, seed uint64) *forger {
	f := &forger{T: t, Cluster: fake.New(fake.Config{Seed: seed}), random: rand.New(rand.NewPCG(seed, 2)), seed: seed, forged: map[types.UID]bool{}}
	f.Interface = f.Client("forger")
	hard := vms(forgerVMs)
	cpu, memory := hard["limits.cpu"], hard["limits.memory"]
	cpu.Add(resource.MustParse("500m"))
	memory.Add(resource.MustParse("500Mi"))
	hard["limits.cpu"], hard["limits.memory"] = cpu, memory
	hard["count/resourceclaims.resource.k8s.io"] = *resource.NewQuantity(forgerVMs+3, resource.DecimalSI)
	require.NoError(t, f.CreateNamespace("n", hard))
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "nics"}}
	_, err := f.ResourceV1().ResourceClaimTemplates("n").Create(t.Context(), template, metav1.CreateOptions{})
	require.NoError(t, err)
	f.Advance(time.Second)
	for i := range forgerVMs {
		vmi := fake.NewVMI("n", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))
		require.NoError(t, json.Unmarshal([]byte(`[{"name":"net","resourceClaimTemplateName":"nics"}]`), &vmi.Spec.ResourceClaims))
		require.NoError(t, f.CreateVMI(vmi))
	}
	f.Advance(time.Minute)
	f.Start("headroom", library)
	f.Advance(time.Second)
	return f
}

// migrations counts those that there are, by what was not forged: the VMIMs that have not ended,
// and the pods that VMIs have beyond one.
func (f *forger) migrations() int {
	s, n := f.Snapshot("n"), 0
	pods := map[string]int{}
	for _, pod := range s.Pods {
		if !f.forged[pod.UID] && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			pods[pod.Labels[kubevirtv1.CreatedByLabel]]++
		}
	}
	for _, m := range s.Migrations {
		if !m.IsFinal() {
			n++
		}
	}
	for _, count := range pods {
		n += count - 1
	}
	return n
}

// judge holds status.hard to what there was within the last seconds.
func (f *forger) judge() {
	n := f.migrations()
	for len(f.busy) <= n {
		f.busy = append(f.busy, time.Time{})
	}
	f.busy[n] = f.Now()
	for more := len(f.busy) - 1; more > n; more-- {
		if f.Now().Sub(f.busy[more]) < 5*time.Second {
			n = more
			break
		}
	}
	rq, one := f.Quota("n", "n"), vms(1)
	one["count/resourceclaims.resource.k8s.io"] = resource.MustParse("1")
	for name, limit := range rq.Status.Hard {
		most := rq.Spec.Hard[name].DeepCopy()
		for range 4 * n {
			most.Add(one[name])
		}
		if limit.Cmp(most) > 0 {
			f.Fatalf("seed %d, %v: with %d migrations %s is %s\n%s", f.seed, f.Now(), n, name, limit.String(), strings.Join(f.History(), "\n"))
		}
	}
}

func (f *forger) pass(d time.Duration) {
	f.Until(d, func() bool {
		f.judge()
		return false
	})
}

func choose[T any](f *forger, from ...T) T { return from[f.random.IntN(len(from))] }

func (f *forger) name() string {
	f.named++
	return fmt.Sprint("forged", f.named)
}

// vmi and vmim return one that there is, or that there was.
func (f *forger) vmi() *kubevirtv1.VirtualMachineInstance {
	return choose(f, f.Snapshot("n").VMIs...)
}

func (f *forger) job() types.UID {
	all := f.Snapshot("n").Migrations
	if len(all) == 0 || f.random.IntN(8) == 0 {
		return "gone"
	}
	return choose(f, all...).UID
}

func (f *forger) amount() string {
	return choose(f, "1", "1m", "100m", "1Mi", "400Mi", "64Gi", "1e12", "12345678901234567890", "100E", "0")
}

func (f *forger) owner() []metav1.OwnerReference {
	vmi := f.vmi()
	switch pods := f.Snapshot("n").Pods; f.random.IntN(3) {
	case 0:
		return nil
	case 1:
		return []metav1.OwnerReference{*metav1.NewControllerRef(choose(f, pods...), corev1.SchemeGroupVersion.WithKind("Pod"))}
	default:
		return []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)}
	}
}

func (f *forger) launcherLabels() map[string]string {
	return map[string]string{
		kubevirtv1.AppLabel:          choose(f, "virt-launcher", "virt-launcher", "hotplug-disk"),
		kubevirtv1.CreatedByLabel:    string(f.vmi().UID),
		kubevirtv1.MigrationJobLabel: string(f.job()),
	}
}

// act does one thing; most of it is refused, which is no matter.
func (f *forger) act() {
	ctx, name := context.Background(), f.name()
	switch f.random.IntN(9) {
	case 0, 1:
		limits := corev1.ResourceList{
			"cpu": resource.MustParse(choose(f, "1m", "100m", "400m")), "memory": resource.MustParse(choose(f, "1Mi", "400Mi")),
			"example.com/x": resource.MustParse(f.amount()),
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: f.launcherLabels(), OwnerReferences: f.owner()},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: choose(f, "compute", "c"), Resources: corev1.ResourceRequirements{Limits: limits}}}},
		}
		if made, err := f.CoreV1().Pods("n").Create(ctx, pod, metav1.CreateOptions{}); err == nil {
			f.forged[made.UID] = true
		}
	case 2: // metadata of any pod may be written
		pod := choose(f, f.Snapshot("n").Pods...).DeepCopy()
		pod.Labels[kubevirtv1.MigrationJobLabel] = string(f.job())
		pod.Annotations = map[string]string{kubevirtv1.MemoryOverheadAnnotationBytes: choose(f, "0", "1", "-1", "99999999999")}
		_, _ = f.CoreV1().Pods("n").Update(ctx, pod, metav1.UpdateOptions{})
	case 3, 4:
		pod, vmi := choose(f, f.Snapshot("n").Pods...), f.vmi()
		event := &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Reason: "FailedCreate", LastTimestamp: metav1.NewTime(f.Now()),
			InvolvedObject: corev1.ObjectReference{Kind: "VirtualMachineInstance", Name: vmi.Name, UID: vmi.UID},
		}
		begin := `Error creating pod: pods "p"`
		if f.random.IntN(2) == 0 {
			event.Reason, begin = "FailedResourceClaimCreation", `PodResourceClaim net: create ResourceClaim : resourceclaims.resource.k8s.io "c"`
			event.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Name: pod.Name, UID: pod.UID}
		}
		event.Message = fmt.Sprintf("%s is forbidden: exceeded quota: %s, requested: limits.cpu=%s,limits.memory=%s,count/resourceclaims.resource.k8s.io=%s, used: x, limited: y",
			begin, choose(f, "n", "n", "other"), f.amount(), f.amount(), f.amount())
		_, _ = f.CoreV1().Events("n").Create(ctx, event, metav1.CreateOptions{})
	case 5:
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
			Name: name, OwnerReferences: f.owner(), Annotations: map[string]string{"resource.kubernetes.io/pod-claim-name": "net"},
		}}
		_, _ = f.ResourceV1().ResourceClaims("n").Create(ctx, claim, metav1.CreateOptions{})
	case 6:
		pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Name: name, OwnerReferences: f.owner(), Labels: map[string]string{"persistent-state-for": f.vmi().Name, kubevirtv1.MigrationNameLabel: "m"},
		}}
		pvc.Spec.Resources.Requests = corev1.ResourceList{"storage": resource.MustParse(f.amount())}
		_, _ = f.CoreV1().PersistentVolumeClaims("n").Create(ctx, pvc, metav1.CreateOptions{})
	case 7:
		_ = f.Migrate("n", name, f.vmi().Name, fake.Outcome{Hang: f.random.IntN(8) == 0, Fail: f.random.IntN(4) == 0})
	default:
		f.clean(3)
	}
}

// clean deletes one in so many of the objects that a tenant may delete and that VMs do not need.
func (f *forger) clean(odds int) {
	ctx, s := context.Background(), f.Snapshot("n")
	for _, pod := range s.Pods {
		if f.forged[pod.UID] && f.random.IntN(odds) == 0 {
			_ = f.CoreV1().Pods("n").Delete(ctx, pod.Name, *metav1.NewDeleteOptions(0))
		}
	}
	for _, claim := range s.ResourceClaims {
		if strings.HasPrefix(claim.Name, "forged") && f.random.IntN(odds) == 0 {
			_ = f.ResourceV1().ResourceClaims("n").Delete(ctx, claim.Name, metav1.DeleteOptions{})
		}
	}
	for _, event := range s.Events {
		if strings.HasPrefix(event.Name, "forged") && f.random.IntN(odds) == 0 {
			_ = f.CoreV1().Events("n").Delete(ctx, event.Name, metav1.DeleteOptions{})
		}
	}
	for _, m := range s.Migrations {
		if f.random.IntN(odds) == 0 {
			_ = f.Abort("n", m.Name)
		}
	}
}

// Nothing that a tenant writes raises the limits beyond what his migrations may cost, and when
// he is done, nothing of it is left.
func TestForger(t *testing.T) {
	steps, runs, rested := 0, 0, 0
	for seed := *forgerSeed; steps < *forgerSteps; seed++ {
		f := newForger(t, seed)
		for range 150 {
			f.act()
			f.pass(time.Duration(f.random.ExpFloat64() * float64(time.Second)))
		}
		f.clean(1)
		f.pass(20 * time.Minute)
		if rq := f.Quota("n", "n"); f.migrations() == 0 { // else he has deceived KubeVirt too
			require.True(t, quota.Equal(rq.Spec.Hard, rq.Status.Hard), "seed %d: %v", seed, rq.Status.Hard)
			rested++
		}
		steps += f.Steps()
		runs++
	}
	t.Logf("%d steps, %d runs, %d at rest in the end", steps, runs, rested)
	require.Greater(t, 2*rested, runs)
}
