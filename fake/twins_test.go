package fake_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

var twinScripts = flag.Int("twins", 8, "how many random scripts TestTwins plays, each with the guard and without")

// The namespaces of the twins. Virtual machines migrate here, and not there.
const here, there = "here", "there"

// twins are two namespaces with the same quotas and virtual machines, whose tenants do the
// same at the same times. Whatever the API server answers there is what it has to answer
// here: a migration is invisible. It shares no code with the rule.
type twins struct {
	*testing.T
	*fake.Cluster
	seed   uint64
	guard  bool
	random *rand.Rand
	pods   []string // that are in both
	claims []string
	named  int
	counts counts
	behind time.Time // since when there is less room here than there; zero: there is not
	closed time.Time // since when the guard lets nothing in; zero: it does
}

// counts are the answers that were compared, and those that differ.
type counts struct {
	answers        int
	admitted       int  // here and not there
	guarded        int  // refused here by the guard, and not there
	refused        int  // refused here by quota, and not there
	conflicts      int  // 409 here, and not there
	migrated       int  // migrations that have succeeded
	behind, closed span // with less room here than there; with the guard closed
}

// A span is how long something lasted: in all, and at once.
type span struct{ sum, longest time.Duration }

func (s *span) add(d time.Duration) { s.sum, s.longest = s.sum+d, max(s.longest, d) }

// measure adds to s what begins at *since while is, and has ended when not.
func (s *span) measure(since *time.Time, is bool, now time.Time) {
	switch {
	case is && since.IsZero():
		*since = now
	case !is && !since.IsZero():
		s.add(now.Sub(*since))
		*since = time.Time{}
	}
}

func (c *counts) add(other counts) {
	c.answers += other.answers
	c.admitted += other.admitted
	c.guarded += other.guarded
	c.refused += other.refused
	c.conflicts += other.conflicts
	c.migrated += other.migrated
	for _, s := range []struct{ to, from *span }{{&c.behind, &other.behind}, {&c.closed, &other.closed}} {
		s.to.sum, s.to.longest = s.to.sum+s.from.sum, max(s.to.longest, s.from.longest)
	}
}

func newTwins(t *testing.T, seed uint64, guard bool) *twins {
	random := rand.New(rand.NewPCG(seed, 1))
	config := fake.Config{Seed: seed, Timing: steadyTiming(random)}
	if guard {
		config.Guard = applier.OfferAnnotation
	}
	w := &twins{T: t, Cluster: fake.New(config), seed: seed, guard: guard, random: random}
	vms := 1 + random.Int64N(4)
	limits := fullOf(vms, 1+random.Int64N(3))
	for _, namespace := range []string{here, there} {
		require.NoError(t, w.CreateNamespace(namespace, limits))
	}
	w.Advance(time.Second)
	for i := range vms {
		for _, namespace := range []string{here, there} {
			require.NoError(t, w.CreateVMI(fake.NewVMI(namespace, fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
		}
	}
	w.Advance(time.Minute)
	w.Start("headroom", func(p *fake.Process) fake.Program { return libraryWith(p, guard) })
	w.Advance(time.Second)
	return w
}

// steadyTiming draws how long things take in one run. They always take as long, so that
// what is no migration takes as long in both namespaces.
func steadyTiming(random *rand.Rand) *fake.Timing {
	timing := fake.DefaultTiming()
	fix := func(s *fake.Span) {
		d := s.Min + time.Duration(random.Int64N(int64(s.Max-s.Min)+1))
		*s = fake.Span{Min: d, Max: d}
	}
	for _, s := range []*fake.Span{&timing.Call, &timing.Cache, &timing.Admission, &timing.Guard, &timing.Quota, &timing.Wake, &timing.Node, &timing.Copy, &timing.Linger} {
		fix(s)
	}
	return &timing
}

// fullOf are limits that n VMs and spare tenths of a VM fill.
func fullOf(n, spare int64) corev1.ResourceList {
	hard := vms(n)
	cpu, memory := hard["limits.cpu"], hard["limits.memory"]
	cpu.Add(*resource.NewMilliQuantity(100*spare, resource.DecimalSI))
	memory.Add(*resource.NewQuantity(277371468*spare, resource.BinarySI))
	return corev1.ResourceList{
		"limits.cpu": cpu, "limits.memory": memory, "pods": *resource.NewQuantity(n+4, resource.DecimalSI),
		"persistentvolumeclaims": *resource.NewQuantity(3, resource.DecimalSI), "requests.storage": resource.MustParse("30Mi"),
	}
}

// both calls do for each of the twins, and compares the answers. It reports whether both
// were let in; what was let in on one side only is taken away again with undo.
func (w *twins) both(do func(namespace string) error, undo func(namespace string)) bool {
	w.counts.answers++
	answer, right := do(here), do(there)
	switch {
	case (answer == nil) == (right == nil):
		return answer == nil
	case answer == nil:
		w.counts.admitted++
		if w.guard {
			w.Errorf("seed %d, %v: let in here, and there: %v\n%s", w.seed, w.Now(), right, strings.Join(w.History(), "\n"))
		}
		undo(here)
	default:
		switch {
		case apierrors.IsConflict(answer):
			w.counts.conflicts++
		case strings.Contains(answer.Error(), "ValidatingAdmissionPolicy"):
			w.counts.guarded++
		default:
			w.counts.refused++
		}
		undo(there)
	}
	w.pass(50 * time.Millisecond) // until it is no longer charged
	return false
}

// pass lets time pass, and measures for how long there is less room here than there.
func (w *twins) pass(d time.Duration) {
	w.Until(d, func() bool {
		w.counts.behind.measure(&w.behind, w.lessRoom(), w.Now())
		rq := w.Quota(here, here)
		_, offered := rq.Annotations[applier.OfferAnnotation]
		w.counts.closed.measure(&w.closed, offered && !quota.Equal(rq.Spec.Hard, rq.Status.Hard), w.Now())
		return false
	})
}

func (w *twins) lessRoom() bool {
	mine, theirs := w.Quota(here, here).Status, w.Quota(there, there).Status
	for name, limit := range theirs.Hard {
		room, hers := mine.Hard[name].DeepCopy(), limit.DeepCopy()
		room.Sub(mine.Used[name])
		hers.Sub(theirs.Used[name])
		if hers.Sign() > 0 && room.Cmp(hers) < 0 {
			return true
		}
	}
	return false
}

func (w *twins) name(prefix string) string {
	w.named++
	return fmt.Sprint(prefix, w.named)
}

func (w *twins) deletePod(namespace, name string) {
	require.NoError(w, w.Client("tenant").CoreV1().Pods(namespace).Delete(context.Background(), name, *metav1.NewDeleteOptions(0)))
}

func (w *twins) deleteClaim(namespace, name string) {
	require.NoError(w, w.Client("tenant").CoreV1().PersistentVolumeClaims(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
}

// createPod creates a pod of some tenths of a VM in both.
func (w *twins) createPod(tenths int64) {
	name := w.name("pod")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
			"cpu": *resource.NewMilliQuantity(100*tenths, resource.DecimalSI), "memory": *resource.NewQuantity(277371468*tenths, resource.BinarySI),
		}}}}},
	}
	if w.both(func(namespace string) error {
		_, err := w.Client("tenant").CoreV1().Pods(namespace).Create(context.Background(), pod, metav1.CreateOptions{})
		return err
	}, func(namespace string) { w.deletePod(namespace, name) }) {
		w.pods = append(w.pods, name)
	}
}

func (w *twins) createClaim() {
	name := w.name("claim")
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
			"storage": *resource.NewQuantity((1+w.random.Int64N(20))<<20, resource.BinarySI),
		}}},
	}
	if w.both(func(namespace string) error {
		_, err := w.Client("tenant").CoreV1().PersistentVolumeClaims(namespace).Create(context.Background(), claim, metav1.CreateOptions{})
		return err
	}, func(namespace string) { w.deleteClaim(namespace, name) }) {
		w.claims = append(w.claims, name)
	}
}

// drop takes one name out of from.
func (w *twins) drop(from *[]string) (name string, ok bool) {
	if len(*from) == 0 {
		return "", false
	}
	i := w.random.IntN(len(*from))
	name = (*from)[i]
	*from = append((*from)[:i], (*from)[i+1:]...)
	return name, true
}

// migrate migrates a VM here, if it runs.
func (w *twins) migrate(outcome fake.Outcome) {
	vmis := w.Snapshot(here).VMIs
	if vmi := vmis[w.random.IntN(len(vmis))]; vmi.IsRunning() {
		require.NoError(w, w.Migrate(here, w.name("migrate"), vmi.Name, outcome))
	}
}

func (w *twins) step() {
	switch w.random.IntN(16) {
	case 0, 1, 2, 3, 4:
		w.createPod(1 + w.random.Int64N(12))
	case 5: // a Deployment, which retries
		tenths, pause := 1+w.random.Int64N(4), time.Duration(1+w.random.IntN(20))*time.Millisecond
		for range 10 {
			w.createPod(tenths)
			w.pass(pause)
			pause += pause / 2
		}
	case 6, 7:
		if name, ok := w.drop(&w.pods); ok {
			w.deletePod(here, name)
			w.deletePod(there, name)
		}
	case 8:
		w.createClaim()
	case 9:
		if name, ok := w.drop(&w.claims); ok {
			w.deleteClaim(here, name)
			w.deleteClaim(there, name)
		}
	case 10: // an admin
		more := w.random.Int64N(5) - 2
		for _, namespace := range []string{here, there} {
			require.NoError(w, w.EditQuota(namespace, namespace, func(hard corev1.ResourceList) {
				cpu := hard["limits.cpu"]
				cpu.Add(*resource.NewMilliQuantity(100*more, resource.DecimalSI))
				hard["limits.cpu"] = cpu
			}))
		}
	case 11:
		w.pass(100 * time.Millisecond) // KubeVirt forgets the target pod of a migration that is aborted meanwhile
		for _, m := range w.Snapshot(here).Migrations {
			if !m.IsFinal() {
				require.NoError(w, w.Abort(here, m.Name))
				break
			}
		}
	case 12: // somebody who is quick to take what a migration needs
		w.migrate(fake.Outcome{})
		pause := time.Duration(1+w.random.IntN(4)) * time.Millisecond
		for range 40 {
			w.createPod(8)
			w.pass(pause)
		}
	default:
		outcome := fake.Outcome{Fail: w.random.IntN(6) == 0, Hang: w.random.IntN(6) == 0}
		w.migrate(outcome)
	}
	w.pass(time.Duration(w.random.ExpFloat64() * float64(400*time.Millisecond)))
}

func (w *twins) play(steps int) counts {
	for range steps {
		w.step()
	}
	for _, m := range w.Snapshot(here).Migrations {
		if m.Status.Phase == "Succeeded" {
			w.counts.migrated++
		}
	}
	return w.counts
}

// A regular object is let in if and only if it would have been let in had nothing migrated.
func TestTwins(t *testing.T) {
	for _, guard := range []bool{true, false} {
		t.Run(fmt.Sprint("guard=", guard), func(t *testing.T) {
			var sum counts
			late := 0
			for seed := range *twinScripts {
				found := newTwins(t, uint64(seed), guard).play(60)
				sum.add(found)
				if found.behind.longest >= 1500*time.Millisecond {
					t.Logf("seed %d: less room here for %v", seed, found.behind.longest)
					late++
				}
			}
			t.Logf("%+v", sum)
			require.Greater(t, sum.migrated, *twinScripts)
			require.Greater(t, sum.answers, 20**twinScripts)
			// What a recount has reset is put back no more often than once a second. What a tenant
			// deletes while a target pod is charged may count only after the next recount.
			require.LessOrEqual(t, late, *twinScripts/100)
			require.LessOrEqual(t, sum.conflicts, sum.answers/1000)
			if guard {
				require.Zero(t, sum.admitted)
			}
		})
	}
}
