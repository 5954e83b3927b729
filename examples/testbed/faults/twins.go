package faults

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/measure"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// twins are two namespaces with the same quota and virtual machines, and the same tenant.
type twins struct {
	try.T
	here, there *onbed.Fleet
	client      kubernetes.Interface // the tenant's
	random      *rand.Rand
	own         map[string]corev1.ResourceList // what the tenant has, as quota charges it, by name
	named       int

	migrations, answers int
	admitted            []wrong // where VMs migrate, and not in the twin
	// Refused where VMs migrate, and not in the twin: by the guard, by quota, with 409.
	guarded, refused, conflicts int
	// closed are the times in which the guard refused regular pods, behind those in which
	// there was less room where VMs migrate than in the twin.
	closed, behind stopwatch
}

// A wrong answer is an object that was admitted here, and what the answer was there.
type wrong struct {
	name  string
	right error
}

// runTwins lets all virtual machines of a fleet migrate at once, so often, while a tenant does
// the same in their namespace and in a twin of it, where nothing migrates. What the API
// server answers there is what it has to answer here.
func runTwins(t try.T, s *onbed.Stage, o Options) string {
	installGuard(t, s, o.Guard)
	spare := tenths(3)
	spare[corev1.ResourcePods] = *resource.NewQuantity(int64(o.VMs+6), resource.DecimalSI)
	spare[corev1.ResourcePersistentVolumeClaims] = *resource.NewQuantity(3, resource.DecimalSI)
	spare[corev1.ResourceRequestsStorage] = *resource.NewQuantity(30<<20, resource.BinarySI)
	options := onbed.FleetOptions{More: spare, Prepared: guard}
	w := &twins{
		T: t, client: s.Client, random: rand.New(rand.NewPCG(o.Seed, 1)), own: map[string]corev1.ResourceList{},
		here: s.Fleet(t, "twin", o.VMs, options), there: s.Fleet(t, "twin", o.VMs, options),
	}
	for round := range o.Rounds {
		w.drain(round)
	}
	require.Positive(t, w.answers)
	timelines := w.read()
	// On a busy machine caches may be behind for longer than the library waits for them.
	require.LessOrEqual(t, len(w.admitted), 1, "while VMs migrate a tenant gets what he would not get otherwise%s", timelines)
	return fmt.Sprintf("%d migrations, %d answers compared: %d admitted here only, refused here only: %d by the guard, %d by quota, %d conflicts; "+
		"the guard refused %d times, %v per migration, p50 %v, p99 %v; less room here than there %d times, p50 %v, p99 %v, max %v%s",
		w.migrations, w.answers, len(w.admitted), w.guarded, w.refused, w.conflicts,
		len(w.closed.took), w.closed.mean(w.migrations), w.closed.percentile(50), w.closed.percentile(99),
		len(w.behind.took), w.behind.percentile(50), w.behind.percentile(99), w.behind.percentile(100), timelines)
}

// tenths are so many tenths of a virtual machine, as quota counts them.
func tenths(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(100*n, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(onbed.FleetMemory/10*n, resource.BinarySI),
	}
}

// onContainer returns the limits of the container that is charged so.
func onContainer(charge corev1.ResourceList) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: charge[corev1.ResourceLimitsCPU], corev1.ResourceMemory: charge[corev1.ResourceLimitsMemory],
	}
}

// drain lets all virtual machines migrate, and the tenant work until they have.
func (t *twins) drain(round int) {
	for i, vm := range t.here.VMs {
		t.here.CreateMigration(scenario.Migrate{Name: fmt.Sprintf("m%d-%d", round, i), VM: vm})
		t.migrations++
	}
	for end := time.Now().Add(5 * time.Minute); !onbed.AllOver(t.here.State()); {
		require.True(t, time.Now().Before(end), "the migrations do not end while a tenant works")
		t.step()
	}
	try.Eventually(t, func(c try.T) { // both are alike
		mine, theirs := t.here.Quota(c), t.there.Quota(c)
		require.True(c, quota.Equal(mine.Status.Hard, theirs.Status.Hard))
		require.True(c, quota.Equal(mine.Status.Hard, mine.Spec.Hard))
		require.True(c, quota.Equal(mine.Status.Used, theirs.Status.Used))
	})
}

// step does one thing that a tenant does.
func (t *twins) step() {
	switch t.random.IntN(12) {
	case 0, 1, 2:
		t.createPod(1 + t.random.Int64N(12))
	case 3: // a Deployment, which retries
		t.again(8, time.Duration(1+t.random.IntN(20))*time.Millisecond, 1+t.random.Int64N(4))
	case 4: // somebody who is quick to take what a migration needs
		t.again(40, time.Duration(t.random.IntN(4))*time.Millisecond, 8)
	case 5, 6, 7:
		if name := t.pick(""); name != "" {
			t.delete(name)
		}
	case 8:
		t.createClaim()
	case 9:
		t.resize()
	case 10:
		t.edit(t.random.Int64N(5) - 2)
	default:
		try.Sleep(t, time.Duration(t.random.IntN(100))*time.Millisecond)
	}
}

func (t *twins) again(n int, pause time.Duration, size int64) {
	for range n {
		t.createPod(size)
		try.Sleep(t, pause)
	}
}

func (t *twins) name(kind string) string {
	t.named++
	return fmt.Sprint(kind, "-", t.named)
}

// both asks for the same in both namespaces, and compares the answers. It reports in how
// many of them it was admitted.
func (t *twins) both(what string, do func(namespace string) error) (admitted int) {
	t.answers++
	answer, right := do(t.here.Namespace()), do(t.there.Namespace())
	if right != nil {
		require.True(t, scenario.Exceeds(right), "%v", right)
	}
	switch {
	case answer == nil && right == nil:
		return 2
	case answer != nil && right != nil:
		return 0
	case answer == nil:
		t.admitted = append(t.admitted, wrong{what, right})
	case apierrors.IsConflict(answer):
		t.conflicts++
	case strings.Contains(answer.Error(), "ValidatingAdmissionPolicy"):
		t.guarded++
	default:
		require.True(t, scenario.Exceeds(answer), "%v", answer)
		t.refused++
	}
	return 1
}

// createPod creates a pod of so many tenths of a virtual machine.
func (t *twins) createPod(size int64) {
	name, charge := t.name("pod"), tenths(size)
	pod := scenario.NewPod(name, onContainer(charge))
	charge[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	t.create(name, charge, func(namespace string) error {
		_, err := t.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		return err
	})
}

func (t *twins) createClaim() {
	name, size := t.name("claim"), *resource.NewQuantity((1+t.random.Int64N(20))<<20, resource.BinarySI)
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
	charge := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: *resource.NewQuantity(1, resource.DecimalSI), corev1.ResourceRequestsStorage: size}
	t.create(name, charge, func(namespace string) error {
		_, err := t.client.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), claim, metav1.CreateOptions{})
		return err
	})
}

// create keeps what both admit. What one of them admits is taken away again.
func (t *twins) create(name string, charge corev1.ResourceList, do func(namespace string) error) {
	switch t.both(name, do) {
	case 1:
		t.delete(name)
	case 2:
		t.own[name] = charge
	}
}

// pick returns the name of something of a kind that the tenant has; empty if there is nothing.
func (t *twins) pick(kind string) string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(t.own)), func(name string) bool { return !strings.HasPrefix(name, kind) })
	if len(names) == 0 {
		return ""
	}
	return names[t.random.IntN(len(names))]
}

// recount is after what time kube-controller-manager has seen what the API server charged.
// What is deleted sooner it may take for never charged, until the next recount.
const recount = 200 * time.Millisecond

// delete deletes a pod or a claim from both, and waits until the twin does not charge it.
func (t *twins) delete(name string) {
	try.Sleep(t, recount)
	for _, f := range []*onbed.Fleet{t.here, t.there} {
		var err error
		if strings.HasPrefix(name, "pod") {
			err = t.client.CoreV1().Pods(f.Namespace()).Delete(t.Context(), name, *metav1.NewDeleteOptions(0))
		} else {
			claims := t.client.CoreV1().PersistentVolumeClaims(f.Namespace())
			if err = claims.Delete(t.Context(), name, metav1.DeleteOptions{}); err == nil { // and what protects it may take long
				_, err = claims.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
		}
		if !apierrors.IsNotFound(err) {
			require.NoError(t, err)
		}
	}
	delete(t.own, name)
	used := amounts.Each(amounts.Each(t.there.Static, t.there.Static, amounts.Minus), t.there.Regular, amounts.Plus)
	used[corev1.ResourcePods] = *resource.NewQuantity(int64(len(t.there.VMs)), resource.DecimalSI)
	for _, charge := range t.own {
		used = amounts.Each(used, charge, amounts.Plus)
	}
	t.awaitTwin(func(rq *corev1.ResourceQuota) bool { return quota.Equal(rq.Status.Used, used) })
}

// awaitTwin waits until the twin's quota is as is says, and quota admission knows it.
func (t *twins) awaitTwin(is func(rq *corev1.ResourceQuota) bool) {
	try.Eventually(t, func(c try.T) {
		rq := t.there.Quota(c)
		require.True(c, is(rq), "the twin's quota was not recounted: %v; the tenant has %v", rq.Status, t.own)
	})
	try.Sleep(t, 10*time.Millisecond)
}

// resize makes a pod larger in place. A pod that only one of them admits to be is deleted.
func (t *twins) resize() {
	name, more := t.pick("pod"), tenths(1+t.random.Int64N(3))
	if name == "" {
		return
	}
	switch t.both("more of "+name, func(namespace string) error {
		pods := t.client.CoreV1().Pods(namespace)
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			of := &pod.Spec.Containers[0].Resources
			of.Limits, of.Requests = amounts.Each(of.Limits, onContainer(more), amounts.Plus), amounts.Each(of.Requests, onContainer(more), amounts.Plus)
			_, err = pods.UpdateResize(t.Context(), name, pod, metav1.UpdateOptions{})
			return err
		})
	}) {
	case 1:
		t.delete(name)
	case 2:
		t.own[name] = amounts.Each(t.own[name], more, amounts.Plus)
	}
}

// edit gives so many tenths of a CPU more, or less. Until a lower limit is enforced takes a
// moment with and without migrations.
func (t *twins) edit(more int64) {
	change := *resource.NewMilliQuantity(100*more, resource.DecimalSI)
	for _, f := range []*onbed.Fleet{t.here, t.there} {
		require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			rq := f.Quota(t)
			cpu := rq.Spec.Hard[corev1.ResourceLimitsCPU]
			cpu.Add(change)
			rq.Spec.Hard[corev1.ResourceLimitsCPU] = cpu
			_, err := t.client.CoreV1().ResourceQuotas(f.Namespace()).Update(t.Context(), rq, metav1.UpdateOptions{})
			return err
		}))
	}
	try.Sleep(t, 500*time.Millisecond)
	t.awaitTwin(func(rq *corev1.ResourceQuota) bool { return quota.Equal(rq.Spec.Hard, rq.Status.Hard) })
}

// read reads in the audit log for how long the guard refused, and for how long there was
// less room here than there. It returns what happened while objects were admitted here only.
func (t *twins) read() (timelines string) {
	mine := t.here.Audit()
	for _, w := range t.admitted {
		timelines += fmt.Sprintf("\n%s was admitted here, and there: %v", w.name, w.right)
		if i := slices.IndexFunc(mine, func(e bed.AuditEvent) bool { return e.Name == w.name && e.Verb == "create" }); i >= 0 {
			from := mine[i].Received
			timelines += onbed.Timeline(mine, from, from.Add(-300*time.Millisecond), mine[i].Answered.Add(50*time.Millisecond))
		}
	}
	versions := try.Must(onbed.QuotaVersions(append(mine, t.there.Audit()...)))(t)
	var here, there *corev1.ResourceQuota
	for _, rq := range versions {
		if rq.Namespace == t.here.Namespace() {
			here = rq.ResourceQuota
			_, offered := here.Annotations[applier.OfferAnnotation]
			t.closed.measure(offered && !quota.Equal(here.Spec.Hard, here.Status.Hard), rq.Event.Answered)
		} else {
			there = rq.ResourceQuota
		}
		if here != nil && there != nil {
			t.behind.measure(hasLessRoom(here, there), rq.Event.Answered)
		}
	}
	slices.Sort(t.closed.took)
	slices.Sort(t.behind.took)
	return timelines
}

// hasLessRoom reports whether a has less room than b has, of anything of which b has some.
func hasLessRoom(a, b *corev1.ResourceQuota) bool {
	needed := amounts.Each(b.Status.Hard, b.Status.Used, amounts.Minus)
	return amounts.Exceeds(needed, amounts.Each(a.Status.Hard, a.Status.Used, amounts.Minus))
}

// A stopwatch measures for how long things last.
type stopwatch struct {
	since time.Time // zero: it is not
	took  []time.Duration
}

func (s *stopwatch) measure(is bool, now time.Time) {
	switch {
	case is && s.since.IsZero():
		s.since = now
	case !is && !s.since.IsZero():
		s.took = append(s.took, max(0, now.Sub(s.since)))
		s.since = time.Time{}
	}
}

func (s *stopwatch) percentile(p int) time.Duration {
	return measure.Percentile(s.took, p).Round(time.Millisecond)
}

// mean is the sum divided by n.
func (s *stopwatch) mean(n int) time.Duration {
	var sum time.Duration
	for _, d := range s.took {
		sum += d
	}
	return (sum / time.Duration(max(n, 1))).Round(time.Millisecond)
}
