package fake

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// limiter starts a process that makes status.hard of the quota n what hard says.
func limiter(c *Cluster, hard func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList) *Process {
	return c.Start("us", func(p *Process) Program {
		return Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			quotas := p.Client.CoreV1().ResourceQuotas(namespace)
			rq, err := quotas.Get(ctx, namespace, metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			wanted := hard(p.Caches.Snapshot(namespace), rq)
			if quota.Equal(wanted, rq.Status.Hard) {
				return 0, nil
			}
			rq.Status.Hard = wanted
			_, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			return 0, err
		}}
	})
}

// effective does it right.
func effective(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
	return quota.Effective(rq.Spec.Hard, migration.InFlight(s), rq.Status.Used)
}

// static does nothing.
func static(_ migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList { return rq.Spec.Hard }

// enforceAs makes status.hard of quota n what hard says, as user.
func enforceAs(c *Cluster, user string, hard corev1.ResourceList) {
	write(c, user, c.Quota("n", "n"), func(rq *corev1.ResourceQuota) { rq.Status.Hard = hard })
}

// tested makes what write does the act of a process.
func tested(c *Cluster, write func()) {
	c.store.tested = true
	write()
	c.store.tested = false
}

func broken(violations []Violation) []Invariant {
	var which []Invariant
	for _, v := range violations {
		which = append(which, v.Invariant)
	}
	return which
}

func TestGoodProgramBreaksNothing(t *testing.T) {
	for name, outcome := range map[string]Outcome{"success": {}, "failure": {Fail: true}, "a source that lingers": {Linger: 30 * time.Minute}, "a migration that hangs": {Hang: true}} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{}, 1, 0)
			limiter(c, effective)
			require.NoError(t, c.Migrate("n", "m", "vm0", outcome))
			require.Empty(t, c.Finish())
			require.NotEqual(t, "Pending!", phases(c))
		})
	}
}

func TestBelowStatic(t *testing.T) {
	for name, hard := range map[string]corev1.ResourceList{
		"lower":   quantities("limits.cpu", "1014m", "limits.memory", "2773714688"),
		"dropped": quantities("limits.cpu", "2"),
		"added":   quantities("limits.cpu", "2", "limits.memory", "2773714688", "pods", "100"),
	} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{Seed: 7}, 1, 0)
			limiter(c, func(migration.Snapshot, *corev1.ResourceQuota) corev1.ResourceList { return hard })
			c.Advance(time.Second)
			require.Equal(t, []Invariant{BelowStatic}, broken(c.Violations()))
			told := c.Violations()[0].String()
			require.Contains(t, told, "BelowStatic at 1m1")
			require.Regexp(t, "us (lowers|limits) (limits|pods)", told)
			require.Contains(t, told, "seed 7, the last actions:")
			require.Contains(t, told, "admin creates virtualmachineinstances n/vm0")
		})
	}
}

func TestStaticIsSpecHard(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	c.StopQuotaController()
	setRoom(t, c, 3)
	tested(c, func() {
		write(c, "us", c.Quota("n", "n"), func(rq *corev1.ResourceQuota) { rq.Annotations = map[string]string{"a": "b"} })
	})
	require.Empty(t, c.Violations(), "that status.hard lags behind is nobody's fault")
	tested(c, func() { enforceAs(c, "us", room(2)) })
	require.Equal(t, []Invariant{BelowStatic, BelowStatic}, broken(c.Violations()), "it wrote what was static before")
	enforceAs(c, "resourcequota-controller", room(1))
	require.Len(t, c.Violations(), 2, "others may")
}

func TestWroteSpec(t *testing.T) {
	for name, call := range map[string]func(context.Context, *Process, *corev1.ResourceQuota) error{
		"update": func(ctx context.Context, p *Process, rq *corev1.ResourceQuota) error {
			_, err := p.Client.CoreV1().ResourceQuotas("n").Update(ctx, rq, metav1.UpdateOptions{})
			return err
		},
		"patch": func(ctx context.Context, p *Process, _ *corev1.ResourceQuota) error {
			_, err := p.Client.CoreV1().ResourceQuotas("n").Patch(ctx, "n", types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":null}}}`), metav1.PatchOptions{})
			return err
		},
		"create": func(ctx context.Context, p *Process, _ *corev1.ResourceQuota) error {
			_, err := p.Client.CoreV1().ResourceQuotas("n").Create(ctx, newQuota("n", "n", room(1)), metav1.CreateOptions{})
			require.Error(t, err, "the attempt is enough")
			return nil
		},
		"delete": func(ctx context.Context, p *Process, _ *corev1.ResourceQuota) error {
			return p.Client.CoreV1().ResourceQuotas("n").Delete(ctx, "n", metav1.DeleteOptions{})
		},
		"used": func(ctx context.Context, p *Process, rq *corev1.ResourceQuota) error {
			rq.Status.Used["limits.cpu"] = milli(1)
			_, err := p.Client.CoreV1().ResourceQuotas("n").UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			return err
		},
		"labels": func(ctx context.Context, p *Process, rq *corev1.ResourceQuota) error {
			rq.Labels = map[string]string{"a": "b"}
			_, err := p.Client.CoreV1().ResourceQuotas("n").UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			return err
		},
		"nothing": func(ctx context.Context, p *Process, rq *corev1.ResourceQuota) error {
			rq.Annotations, rq.Status.Hard = map[string]string{"a": "b"}, room(2)
			_, err := p.Client.CoreV1().ResourceQuotas("n").UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{}, 1, 0)
			c.Start("us", once(func(ctx context.Context, p *Process) error { return call(ctx, p, c.Quota("n", "n")) }))
			c.Advance(time.Second)
			if name == "nothing" {
				require.Empty(t, c.Violations())
				require.Equal(t, 1, c.StatusWrites("us", ResourceQuotas))
				require.Equal(t, 1, c.Writes("us", ResourceQuotas))
				return
			}
			require.Equal(t, []Invariant{WroteSpec}, broken(c.Violations()))
		})
	}
}

func TestLeftoverLimits(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
		if len(s.Migrations) == 0 {
			return rq.Spec.Hard
		}
		return room(2) // for ever, after each recount
	})
	require.Empty(t, c.Finish())
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	require.Equal(t, []Invariant{Restless, Leftover}, broken(c.Finish()))
	require.Contains(t, c.Violations()[1].Detail, "quota n/n enforces {limits.cpu=2030m limits.memory=5547429376} at rest, static is {limits.cpu=1015m limits.memory=2773714688}")
}

func TestLeftoverIsAboutBytes(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	enforce(t, c, newQuota("n", "n", quantities("limits.memory", "4952Mi")))
	limiter(c, static)
	c.Advance(time.Hour)
	tested(c, func() { enforceAs(c, "us", quantities("limits.memory", "5192548352")) })
	require.Equal(t, []Invariant{Leftover}, broken(c.Finish()), "a recount does not write what is equal")
	require.Contains(t, c.Violations()[0].Detail, "5192548352")
}

func TestLeftoverWhileAMigrationHangs(t *testing.T) {
	for name, hard := range map[string]corev1.ResourceList{"too much": room(3), "too little": room(1)} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{}, 1, 0)
			limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
				if phases(c) == "Running" {
					return hard // it should be two
				}
				return effective(s, rq)
			})
			require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
			violations := c.Finish()
			require.Contains(t, broken(violations), Leftover)
			require.Contains(t, violations[len(violations)-1].Detail, "it should be {limits.cpu=2030m limits.memory=5547429376} to {limits.cpu=2030m")
		})
	}
}

func TestLeftoverAnnotations(t *testing.T) {
	annotate := func(user string) []Violation {
		c := vms(t, Config{}, 1, 0)
		limiter(c, effective)
		annotate := func() {
			write(c, user, c.Quota("n", "n"), func(rq *corev1.ResourceQuota) { rq.Annotations = map[string]string{"a": "b"} })
		}
		if user == "us" {
			tested(c, annotate)
		} else {
			annotate()
		}
		return c.Finish()
	}
	require.Empty(t, annotate("admin"))
	violations := annotate("us")
	require.Equal(t, []Invariant{Leftover}, broken(violations))
	require.Contains(t, violations[0].Detail, "annotations of quota n/n are map[a:b] at rest, they were map[]")
}

func TestRemovedAnnotationIsLearned(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, effective)
	for _, annotations := range []map[string]string{{"a": "b", "c": "d"}, {"c": "e"}} {
		write(c, "admin", c.Quota("n", "n"), func(rq *corev1.ResourceQuota) { rq.Annotations = annotations })
	}
	require.Empty(t, c.Finish())
}

func TestLeftoverObjects(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, effective)
	create := func(name string) {
		require.NoError(t, createAs(c, "somebody", newConfigMap(name)))
	}
	create("of-admin")
	tested(c, func() { create("of-us") })
	violations := c.Finish()
	require.Equal(t, []Invariant{Leftover}, broken(violations))
	require.Equal(t, "configmaps n/of-us is left although nothing is in flight", violations[0].Detail)
	require.NoError(t, c.remove("admin", ConfigMaps, "n", "of-us", metav1.DeleteOptions{}))
	c.judge.broken = nil
	require.Empty(t, c.Finish())
}

func TestRestless(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	c.Start("us", func(p *Process) Program {
		return Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			rq, err := p.Client.CoreV1().ResourceQuotas(namespace).Get(ctx, namespace, metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			_, err = p.Client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, rq, metav1.UpdateOptions{})
			return time.Minute, err
		}}
	})
	violations := c.Finish()
	require.Equal(t, []Invariant{Restless}, broken(violations))
	require.Regexp(t, "us wrote (9|10|11) times to resourcequotas in the last 10m0s", violations[0].Detail)
}

// While a migration hangs, what a recount resets is put back, and that is all.
func TestRestlessWhileAMigrationHangs(t *testing.T) {
	for pause, want := range map[time.Duration]bool{time.Hour: false, time.Second: true} {
		c := vms(t, Config{}, 1, 0)
		limiter(c, effective)
		c.Start("touch", func(p *Process) Program {
			return Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
				_, err := p.Client.CoreV1().ResourceQuotas(namespace).Patch(ctx, namespace, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status")
				return pause, err
			}}
		})
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
		violations := c.Finish()
		require.Equal(t, "Running", phases(c))
		require.Equal(t, want, len(violations) > 0, "%v", violations)
		require.Greater(t, c.StatusWrites("us", ResourceQuotas), 20, "a recount every five minutes")
	}
}

func TestStarved(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, static)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(time.Hour)
	require.Empty(t, c.Violations())
	require.Equal(t, []Invariant{Starved}, broken(c.Finish()))
	require.Contains(t, c.Violations()[0].Detail, "n/m")
}

func TestStarvedAboveAStaticThatWasLowered(t *testing.T) {
	c := vms(t, Config{}, 2, 0)
	setRoom(t, c, 1)
	limiter(c, static)
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(time.Minute)
	require.Equal(t, []string{"n/m"}, c.Starving())
	require.Equal(t, []Invariant{Starved}, broken(c.Finish()))
}

func TestNotStarved(t *testing.T) {
	t.Run("by a budget", func(t *testing.T) {
		c := vms(t, Config{Policy: quota.Policy{Budget: quantities("limits.cpu", "1")}}, 1, 0)
		limiter(c, static)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(time.Hour)
		require.Equal(t, "Pending!", phases(c))
		require.NotContains(t, broken(c.Finish()), Starved)
	})
	t.Run("by the growth of the guest", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		limiter(c, effective)
		require.NoError(t, c.HotPlug("n", "vm0", 2, gibi(1)))
		c.Advance(time.Hour)
		require.Equal(t, "Pending!", phases(c))
		require.NotContains(t, broken(c.Finish()), Starved)
	})
	t.Run("by KubeVirt's own limits", func(t *testing.T) {
		c := vms(t, Config{Nodes: 2}, 6, 2)
		limiter(c, static)
		migrateAll(t, c, 4, Outcome{Hang: true})
		require.Equal(t, 2, strings.Count(phases(c), "Pending!"))
		c.Advance(10 * time.Minute)
		setRoom(t, c, 10) // four hang, the others would fit but may not
		require.NoError(t, c.Migrate("n", "m4", "vm4", Outcome{Hang: true}))
		require.NoError(t, c.Migrate("n", "m5", "vm5", Outcome{Hang: true}))
		c.Advance(time.Hour)
		require.NotContains(t, broken(c.Finish()), Starved)
	})
	t.Run("by the migrations of others", func(t *testing.T) {
		c := vms(t, Config{Nodes: 2}, 1, 0)
		limiter(c, static)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(time.Minute)
		for i := range 5 {
			require.NoError(t, c.CreateVMI(NewVMI("others", fmt.Sprintf("vm%d", i), 1, gibi(1))))
		}
		c.Advance(time.Minute)
		for i := range 5 {
			require.NoError(t, c.Migrate("others", fmt.Sprintf("m%d", i), fmt.Sprintf("vm%d", i), Outcome{Hang: true}))
		}
		c.Advance(time.Hour)
		require.Equal(t, 4, strings.Count(phases(c), "Running"))
		require.NotContains(t, broken(c.Finish()), Starved)
	})
	t.Run("by a thief", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		tested(c, func() { enforceAs(c, "us", room(2)) })
		c.Advance(100 * ms)
		require.NoError(t, createPod(c, podOf("thief", limits("cpu", "1015m", "memory", "2773714688"))))
		limiter(c, static)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		require.NotContains(t, broken(c.Finish()), Starved)
		require.Equal(t, "Pending!", phases(c))
	})
	t.Run("when it was aborted", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		limiter(c, static)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(10 * time.Minute)
		require.NoError(t, c.Abort("n", "m"))
		c.Advance(time.Hour)
		require.NotContains(t, broken(c.Finish()), Starved)
	})
}

func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) []string {
		c := vms(t, Config{Seed: seed}, 3, 0)
		p := limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
			return quota.Policy{Eager: true}.Decide(rq.Spec.Hard, migration.InFlight(s), rq.Status.Used).Hard
		})
		limiter(c, effective)
		c.Inject(c.Chance(map[Fault]float64{Conflict: 0.1, Timeout: 0.1, Crash: 0.05}))
		var lines []string
		for i := range 10 {
			name := fmt.Sprint("m", i)
			for _, act := range []func() error{
				func() error { return c.Migrate("n", name, "vm0", Outcome{}) }, func() error { return c.Abort("n", name) },
				func() error { return createPod(c, podOf(name, limits("cpu", "1", "memory", "1Gi"))) },
			} {
				if err := act(); err != nil {
					lines = append(lines, err.Error())
				}
				c.Advance(c.draw(Span{0, 5 * time.Second}))
			}
			p.DropWatch(Pods, time.Second)
			lines = append(lines, c.History()...)
		}
		for _, v := range c.Finish() {
			lines = append(lines, v.String())
		}
		return append(lines, fmt.Sprint(c.store.version))
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
}

func TestHistoryTellsWhatMatters(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 1)
	c.history = nil
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
	c.Advance(10 * time.Second)
	require.NoError(t, c.Abort("n", "m"))
	c.Advance(10 * time.Second)
	target := c.Snapshot("n").Pods[0].Name
	if source := c.virt.current(c.VMI("n", "vm0")); source.Name == target {
		target = c.Snapshot("n").Pods[1].Name
	}
	var told, quotas []string
	for _, line := range c.History() {
		line = regexp.MustCompile(`^1m[0-9.]+s `).ReplaceAllString(strings.ReplaceAll(line, target, "TARGET"), "")
		if strings.Contains(line, "resourcequotas") {
			quotas = append(quotas, line)
		} else {
			told = append(told, line)
		}
	}
	const two = "{limits.cpu=2030m limits.memory=5547429376}"
	require.Equal(t, []string{
		"kube-apiserver updates resourcequotas n/n: hard " + two + ", enforced " + two + ", used " + two,
		"resourcequota-controller updates resourcequotas n/n: hard " + two + ", enforced " + two + ", used {limits.cpu=1015m limits.memory=2773714688}",
	}, quotas)
	require.Equal(t, []string{
		"admin creates virtualmachineinstancemigrations n/m",
		"virt-controller updates virtualmachineinstancemigrations n/m: Pending",
		"virt-controller creates pods n/TARGET: Pending",
		"virt-controller updates virtualmachineinstancemigrations n/m: Scheduling",
		"kubelet updates pods n/TARGET: Running",
		"virt-controller updates virtualmachineinstancemigrations n/m: Scheduled",
		"virt-controller updates virtualmachineinstancemigrations n/m: PreparingTarget",
		"virt-controller updates virtualmachineinstancemigrations n/m: TargetReady",
		"virt-controller updates virtualmachineinstancemigrations n/m: Running",
		"admin updates virtualmachineinstancemigrations n/m: Running, being deleted",
		"virt-controller updates virtualmachineinstancemigrations n/m: Failed, being deleted",
		"virt-controller deletes virtualmachineinstancemigrations n/m: Failed, being deleted",
		"kubelet updates pods n/TARGET: Succeeded",
	}, told)
}

func TestHistoryIsShort(t *testing.T) {
	c := New(Config{})
	for i := range 500 {
		c.note("action %d", i)
	}
	require.Len(t, c.History(), remembered)
	require.Equal(t, "0s action 499", c.History()[remembered-1])
	require.Equal(t, "0s action 460", c.History()[0])
}
