package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/quota"
)

// A TwinsReport is what came of [Twins].
type TwinsReport struct {
	Migrations int
	Answers    int      // of the API server, that were compared
	Admitted   int      // where VMs migrate, and not in the twin
	Guarded    int      // refused by the guard where VMs migrate, and not in the twin
	Refused    int      // refused by quota where VMs migrate, and not in the twin
	Conflicts  int      // 409 where VMs migrate, and not in the twin
	Timelines  []string // of what was admitted here only
	// Closed are the times in which the guard refused regular pods, Behind those in which
	// there was less room where VMs migrate than in the twin; both in ascending order.
	Closed, Behind []time.Duration

	wrong []wrong
}

// A wrong answer is an object that was admitted here, and what the answer was there.
type wrong struct {
	name  string
	right error
}

func (r TwinsReport) String() string {
	text := fmt.Sprintf("%d migrations, %d answers compared: %d admitted here only, refused here only: %d by the guard, %d by quota, %d conflicts; "+
		"the guard refused %d times, %v per migration, p50 %v, p99 %v; less room here than there %d times, p50 %v, p99 %v, max %v",
		r.Migrations, r.Answers, r.Admitted, r.Guarded, r.Refused, r.Conflicts,
		len(r.Closed), mean(r.Closed, r.Migrations), Percentile(r.Closed, 50), Percentile(r.Closed, 99),
		len(r.Behind), Percentile(r.Behind, 50), Percentile(r.Behind, 99), Percentile(r.Behind, 100))
	for _, timeline := range r.Timelines {
		text += "\n" + timeline
	}
	return text
}

func mean(durations []time.Duration, n int) time.Duration {
	var sum time.Duration
	for _, d := range durations {
		sum += d
	}
	return (sum / time.Duration(max(n, 1))).Round(time.Millisecond)
}

// Twins lets all virtual machines of a fleet migrate at once, so often, while a tenant does
// the same in their namespace and in a twin of it, where nothing migrates. What the API
// server answers there is what it has to answer here. The stage has the library; folder is
// as in [Steal].
func Twins(ctx context.Context, stage *onbed.Stage, vms, rounds int, seed uint64, folder string) (TwinsReport, error) {
	t, err := newTwins(ctx, stage, vms, seed)
	if err != nil {
		return TwinsReport{}, err
	}
	if folder != "" {
		if err := errors.Join(installGuard(ctx, stage, folder), guard(ctx, stage, t.here.Namespace()), guard(ctx, stage, t.there.Namespace())); err != nil {
			return TwinsReport{}, err
		}
	}
	for round := range rounds {
		if err := t.drain(ctx, round); err != nil {
			return t.report, err
		}
	}
	if err := t.read(); err != nil {
		return t.report, err
	}
	return t.report, errors.Join(t.here.Close(ctx), t.there.Close(ctx))
}

// twins are two namespaces with the same quota and virtual machines, and the same tenant.
type twins struct {
	here, there *onbed.Fleet
	client      kubernetes.Interface // the tenant's
	random      *rand.Rand
	base        corev1.ResourceList            // what the VMs are charged
	own         map[string]corev1.ResourceList // what the tenant has, as quota charges it, by name
	named       int
	report      TwinsReport
}

func newTwins(ctx context.Context, stage *onbed.Stage, vms int, seed uint64) (*twins, error) {
	config := rest.CopyConfig(stage.Bed.Config())
	config.QPS = -1 // the tenant is in a hurry
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	t := &twins{client: client, random: rand.New(rand.NewPCG(seed, 1)), own: map[string]corev1.ResourceList{}}
	spare := tenths(3)
	spare[corev1.ResourcePods] = *resource.NewQuantity(int64(vms+6), resource.DecimalSI)
	spare[corev1.ResourcePersistentVolumeClaims] = *resource.NewQuantity(3, resource.DecimalSI)
	spare[corev1.ResourceRequestsStorage] = *resource.NewQuantity(30<<20, resource.BinarySI)
	for _, f := range []**onbed.Fleet{&t.here, &t.there} {
		if *f, err = stage.Fleet(ctx, "twin", vms, onbed.More(spare)); err != nil {
			return nil, err
		}
	}
	rq, err := t.quota(ctx, t.there)
	if err != nil {
		return nil, err
	}
	t.base = rq.Status.Used
	return t, nil
}

// tenths are so many tenths of a virtual machine, as quota counts them.
func tenths(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceLimitsCPU:    *resource.NewMilliQuantity(100*n, resource.DecimalSI),
		corev1.ResourceLimitsMemory: *resource.NewQuantity(onbed.FleetMemory/10*n, resource.BinarySI),
	}
}

// drain lets all virtual machines migrate, and the tenant work until they have.
func (t *twins) drain(ctx context.Context, round int) error {
	for i, vm := range t.here.VMs {
		if err := t.here.CreateMigration(ctx, scenario.Migrate{Name: fmt.Sprintf("m%d-%d", round, i), VM: vm}); err != nil {
			return err
		}
		t.report.Migrations++
	}
	for end := time.Now().Add(5 * time.Minute); ; {
		if err := t.step(ctx); err != nil {
			return err
		}
		s, err := t.here.State(ctx)
		if err != nil {
			return err
		}
		if allOver(s) {
			break
		}
		if time.Now().After(end) {
			return errors.New("the migrations do not end while a tenant works")
		}
	}
	return eventually(ctx, "both are alike", func() bool {
		mine, first := t.quota(ctx, t.here)
		theirs, second := t.quota(ctx, t.there)
		return errors.Join(first, second) == nil && quota.Equal(mine.Status.Hard, theirs.Status.Hard) &&
			quota.Equal(mine.Status.Hard, mine.Spec.Hard) && quota.Equal(mine.Status.Used, theirs.Status.Used)
	})
}

func (t *twins) quota(ctx context.Context, f *onbed.Fleet) (*corev1.ResourceQuota, error) {
	return t.client.CoreV1().ResourceQuotas(f.Namespace()).Get(ctx, onbed.FleetQuota, metav1.GetOptions{})
}

// step does one thing that a tenant does.
func (t *twins) step(ctx context.Context) error {
	switch t.random.IntN(12) {
	case 0, 1, 2:
		return t.createPod(ctx, 1+t.random.Int64N(12))
	case 3: // a Deployment, which retries
		size, pause := 1+t.random.Int64N(4), time.Duration(1+t.random.IntN(20))*time.Millisecond
		return t.again(ctx, 8, pause, size)
	case 4: // somebody who is quick to take what a migration needs
		return t.again(ctx, 40, time.Duration(t.random.IntN(4))*time.Millisecond, 8)
	case 5, 6, 7:
		return t.remove(ctx)
	case 8:
		return t.createClaim(ctx)
	case 9:
		return t.resize(ctx)
	case 10:
		return t.edit(ctx, t.random.Int64N(5)-2)
	default:
		return wait(ctx, time.Duration(t.random.IntN(100))*time.Millisecond)
	}
}

func (t *twins) again(ctx context.Context, n int, pause time.Duration, size int64) error {
	for range n {
		if err := errors.Join(t.createPod(ctx, size), wait(ctx, pause)); err != nil {
			return err
		}
	}
	return nil
}

func (t *twins) name(kind string) string {
	t.named++
	return fmt.Sprintf("%s-%d", kind, t.named)
}

// both asks for the same in both namespaces, and compares the answers. It reports in how
// many of them it was admitted.
func (t *twins) both(what string, do func(namespace string) error) (admitted int, err error) {
	t.report.Answers++
	answer, right := do(t.here.Namespace()), do(t.there.Namespace())
	switch {
	case right != nil && !isQuota(right):
		return 0, right
	case answer == nil && right == nil:
		return 2, nil
	case answer != nil && right != nil:
		return 0, nil
	case answer == nil:
		t.report.Admitted++
		t.report.wrong = append(t.report.wrong, wrong{what, right})
	case apierrors.IsConflict(answer):
		t.report.Conflicts++
	case strings.Contains(answer.Error(), "ValidatingAdmissionPolicy"):
		t.report.Guarded++
	case isQuota(answer):
		t.report.Refused++
	default:
		return 1, answer
	}
	return 1, nil
}

func isQuota(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}

// createPod creates a pod of so many tenths of a virtual machine.
func (t *twins) createPod(ctx context.Context, size int64) error {
	name, charge := t.name("pod"), tenths(size)
	pod := scenario.NewPod(name, corev1.ResourceList{
		corev1.ResourceCPU: charge[corev1.ResourceLimitsCPU], corev1.ResourceMemory: charge[corev1.ResourceLimitsMemory],
	})
	charge[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	return t.create(ctx, name, charge, func(namespace string) error {
		_, err := t.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
}

func (t *twins) createClaim(ctx context.Context) error {
	name, size := t.name("claim"), *resource.NewQuantity((1+t.random.Int64N(20))<<20, resource.BinarySI)
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
	charge := corev1.ResourceList{corev1.ResourcePersistentVolumeClaims: *resource.NewQuantity(1, resource.DecimalSI), corev1.ResourceRequestsStorage: size}
	return t.create(ctx, name, charge, func(namespace string) error {
		_, err := t.client.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, claim, metav1.CreateOptions{})
		return err
	})
}

// create keeps what both admit. What one of them admits is taken away again.
func (t *twins) create(ctx context.Context, name string, charge corev1.ResourceList, do func(namespace string) error) error {
	switch admitted, err := t.both(name, do); {
	case err != nil || admitted == 0:
		return err
	case admitted == 1:
		return t.delete(ctx, name)
	}
	t.own[name] = charge
	return nil
}

// remove deletes something, if there is something.
func (t *twins) remove(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(t.own))
	if len(names) == 0 {
		return nil
	}
	name := names[t.random.IntN(len(names))]
	delete(t.own, name)
	return t.delete(ctx, name)
}

// recount is after what time kube-controller-manager has seen what the API server charged.
// What is deleted sooner it may take for never charged, until the next recount.
const recount = 200 * time.Millisecond

// delete deletes a pod or a claim from both, and waits until the twin does not charge it.
func (t *twins) delete(ctx context.Context, name string) error {
	if err := wait(ctx, recount); err != nil {
		return err
	}
	for _, f := range []*onbed.Fleet{t.here, t.there} {
		var err error
		if strings.HasPrefix(name, "pod") {
			err = t.client.CoreV1().Pods(f.Namespace()).Delete(ctx, name, *metav1.NewDeleteOptions(0))
		} else {
			claims := t.client.CoreV1().PersistentVolumeClaims(f.Namespace())
			if err = claims.Delete(ctx, name, metav1.DeleteOptions{}); err == nil { // and what protects it may take long
				_, err = claims.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	used := t.base.DeepCopy()
	for _, charge := range t.own {
		add(used, charge)
	}
	return t.awaitTwin(ctx, func(rq *corev1.ResourceQuota) bool { return quota.Equal(rq.Status.Used, used) })
}

// add adds b to a, of what a has.
func add(a, b corev1.ResourceList) {
	for name, q := range b {
		if sum, ok := a[name]; ok {
			sum.Add(q)
			a[name] = sum
		}
	}
}

// awaitTwin waits until the twin's quota is as is says, and quota admission knows it.
func (t *twins) awaitTwin(ctx context.Context, is func(rq *corev1.ResourceQuota) bool) error {
	var rq *corev1.ResourceQuota
	for range 1000 {
		var err error
		if rq, err = t.quota(ctx, t.there); err != nil {
			return err
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil || is(rq) {
			return err
		}
	}
	return fmt.Errorf("the twin's quota was not recounted: %v; the VMs have %v, the tenant %v", rq.Status, t.base, t.own)
}

// resize makes a pod larger in place. A pod that only one of them admits to be is deleted.
func (t *twins) resize(ctx context.Context) error {
	var pods []string
	for name := range t.own {
		if strings.HasPrefix(name, "pod") {
			pods = append(pods, name)
		}
	}
	if len(pods) == 0 {
		return nil
	}
	slices.Sort(pods)
	name, more := pods[t.random.IntN(len(pods))], tenths(1+t.random.Int64N(3))
	switch admitted, err := t.both("more of "+name, func(namespace string) error {
		pods := t.client.CoreV1().Pods(namespace)
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			pod, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			of := pod.Spec.Containers[0].Resources
			for _, list := range []corev1.ResourceList{of.Limits, of.Requests} {
				add(list, corev1.ResourceList{corev1.ResourceCPU: more[corev1.ResourceLimitsCPU], corev1.ResourceMemory: more[corev1.ResourceLimitsMemory]})
			}
			_, err = pods.UpdateResize(ctx, name, pod, metav1.UpdateOptions{})
			return err
		})
	}); {
	case err != nil || admitted == 0:
		return err
	case admitted == 1:
		delete(t.own, name)
		return t.delete(ctx, name)
	}
	add(t.own[name], more)
	return nil
}

// edit gives so many tenths of a CPU more, or less. Until a lower limit is enforced takes a
// moment with and without migrations.
func (t *twins) edit(ctx context.Context, more int64) error {
	change := corev1.ResourceList{corev1.ResourceLimitsCPU: *resource.NewMilliQuantity(100*more, resource.DecimalSI)}
	for _, f := range []*onbed.Fleet{t.here, t.there} {
		if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			rq, err := t.quota(ctx, f)
			if err != nil {
				return err
			}
			add(rq.Spec.Hard, change)
			_, err = t.client.CoreV1().ResourceQuotas(f.Namespace()).Update(ctx, rq, metav1.UpdateOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	if err := wait(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	return t.awaitTwin(ctx, func(rq *corev1.ResourceQuota) bool { return quota.Equal(rq.Spec.Hard, rq.Status.Hard) })
}
