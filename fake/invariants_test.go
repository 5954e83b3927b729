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

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// limiter starts a process that makes the limits of the quota n what hard says.
func limiter(c *Cluster, hard func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList) *Process {
	return c.Start("us", func(p *Process) Program {
		return Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			quotas := p.Client.CoreV1().ResourceQuotas(namespace)
			rq, err := quotas.Get(ctx, namespace, metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			wanted := hard(p.Caches.Snapshot(namespace), rq)
			if quota.Equal(wanted, rq.Spec.Hard) {
				return 0, nil
			}
			rq.Spec.Hard = wanted
			_, err = quotas.Update(ctx, rq, metav1.UpdateOptions{})
			return 0, err
		}}
	})
}

// effective does it right, for vms with one VM in a full quota.
func effective(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
	return quota.Effective(room(1), migration.InFlight(s), rq.Status.Used)
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
	for name, hard := range map[string]corev1.ResourceList{"lower": quantities("limits.cpu", "1014m", "limits.memory", "2773714688"), "dropped": quantities("limits.cpu", "2")} {
		t.Run(name, func(t *testing.T) {
			c := vms(t, Config{Seed: 7}, 1, 0)
			limiter(c, func(migration.Snapshot, *corev1.ResourceQuota) corev1.ResourceList { return hard })
			c.Advance(time.Second)
			require.Equal(t, []Invariant{BelowStatic}, broken(c.Violations()))
			told := c.Violations()[0].String()
			require.Contains(t, told, "BelowStatic at 1m1")
			require.Contains(t, told, "us lowers limits.")
			require.Contains(t, told, "seed 7, the last actions:")
			require.Contains(t, told, "admin creates virtualmachineinstances n/vm0")
		})
	}
}

func TestStaticIsWhatOthersWrite(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, func(migration.Snapshot, *corev1.ResourceQuota) corev1.ResourceList { return room(2) })
	c.Advance(time.Second)
	// The admin raises one limit from 2030m, which is not static, to 3, and adds one.
	require.NoError(t, c.Tenant("n").EditQuota("n", func(hard corev1.ResourceList) {
		hard["limits.cpu"], hard["pods"] = milli(3000), milli(10000)
	}))
	static := c.judge.account(c.Quota("n", "n")).static
	require.Equal(t, "{limits.cpu=3 limits.memory=2773714688 pods=10}", list(static))
	c.Advance(time.Second)
	require.Equal(t, []Invariant{BelowStatic, BelowStatic}, broken(c.Violations()), "the cpu, and the dropped pods")
}

func TestRancherAndTheProcessMayBeOneUser(t *testing.T) {
	c, r, name := managed(t, RancherConfig{}, quantities("limits.cpu", "4"))
	c.Start(RancherUser, func(*Process) Program {
		return Program{Reconcile: func(context.Context, string) (time.Duration, error) { return 0, nil }}
	})
	require.NoError(t, r.SetLimit("n", quantities("limits.cpu", "3")))
	c.Advance(time.Minute)
	require.Equal(t, "{limits.cpu=3}", spec(c, name))
	require.Equal(t, "{limits.cpu=3}", list(c.judge.account(c.Quota("n", name)).static))
	require.Empty(t, c.Finish(), "Rancher may lower static")
}

func TestRecreatedQuotaHasANewStatic(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	require.NoError(t, c.Tenant("n").DeleteQuota("n"))
	enforce(t, c, newQuota("n", "n", room(1)))
	setRoom(t, c, 2)
	require.Equal(t, list(room(2)), list(c.judge.account(c.Quota("n", "n")).static))
	require.Len(t, c.judge.accounts, 1)
}

func TestLeftoverLimits(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
		if len(s.Migrations) == 0 {
			return rq.Spec.Hard
		}
		return room(2) // for ever
	})
	require.Empty(t, c.Finish())
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	require.Equal(t, []Invariant{Leftover}, broken(c.Finish()))
	require.Contains(t, c.Violations()[0].Detail, "limits of quota n/n are {limits.cpu=2030m limits.memory=5547429376} at rest, static is {limits.cpu=1015m limits.memory=2773714688}")
}

func TestLeftoverIsAboutBytes(t *testing.T) {
	c := vms(t, Config{}, 0, -1)
	enforce(t, c, newQuota("n", "n", quantities("limits.memory", "4952Mi")))
	spelled := false
	limiter(c, func(_ migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
		if spelled {
			return rq.Spec.Hard
		}
		spelled = true
		return quantities("limits.memory", "6Gi")
	})
	c.Advance(time.Second)
	tested(c, func() {
		write(c, "us", c.Quota("n", "n"), func(rq *corev1.ResourceQuota) { rq.Spec.Hard = quantities("limits.memory", "5192548352") })
	})
	require.Equal(t, []Invariant{Leftover}, broken(c.Finish()))
	require.Contains(t, c.Violations()[0].Detail, "5192548352")
}

func TestLeftoverWhileAMigrationHangs(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
		if phases(c) == "Running" {
			return room(3) // it should be two
		}
		return effective(s, rq)
	})
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
	require.Equal(t, []Invariant{Leftover}, broken(c.Finish()))
	require.Contains(t, c.Violations()[0].Detail, "they should be {limits.cpu=2030m")
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
		_, err := c.create("somebody", newConfigMap(name))
		require.NoError(t, err)
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
			_, err = p.Client.CoreV1().ResourceQuotas(namespace).Update(ctx, rq, metav1.UpdateOptions{})
			return time.Minute, err
		}}
	})
	violations := c.Finish()
	require.Equal(t, []Invariant{Restless}, broken(violations))
	require.Regexp(t, "us wrote (9|10|11) times to resourcequotas in the last 10m0s", violations[0].Detail)
}

func TestStarved(t *testing.T) {
	c := vms(t, Config{Patience: 5 * time.Minute}, 1, 0)
	limiter(c, func(_ migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList { return rq.Spec.Hard })
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(5 * time.Minute)
	require.Empty(t, c.Violations())
	c.Advance(time.Minute)
	require.Equal(t, []Invariant{Starved}, broken(c.Violations()))
	require.Contains(t, c.Violations()[0].Detail, string(c.Migration("n", "m").UID))
	c.Advance(time.Hour)
	require.Len(t, c.Violations(), 1, "once is enough")
}

func TestDefaultsOfTheJudge(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	limiter(c, func(_ migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList { return rq.Spec.Hard })
	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
	c.Advance(20 * time.Minute)
	require.Empty(t, c.Violations())
	c.Advance(time.Minute)
	require.Equal(t, []Invariant{Starved}, broken(c.Violations()))
	require.Equal(t, 10*time.Second, c.config.Slack)
}

func TestNotStarved(t *testing.T) {
	never := func(_ migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList { return rq.Spec.Hard }
	t.Run("by a budget", func(t *testing.T) {
		c := vms(t, Config{Policy: quota.Policy{Budget: quantities("limits.cpu", "1")}}, 1, 0)
		limiter(c, never)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(time.Hour)
		require.Equal(t, "Pending!", phases(c))
		require.Empty(t, c.Violations())
	})
	t.Run("by the growth of the guest", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		limiter(c, effective)
		require.NoError(t, c.HotPlug("n", "vm0", 2, quantities("memory", "1Gi")["memory"]))
		c.Advance(time.Hour)
		require.Equal(t, "Pending!", phases(c))
		require.Empty(t, c.Violations())
	})
	t.Run("by KubeVirt's own limits", func(t *testing.T) {
		c := vms(t, Config{Nodes: 2}, 6, 2)
		limiter(c, never)
		for i := range 4 {
			require.NoError(t, c.Migrate("n", fmt.Sprintf("m%d", i), fmt.Sprintf("vm%d", i), Outcome{Hang: true}))
		}
		c.Advance(time.Minute)
		require.Equal(t, 2, strings.Count(phases(c), "Pending!"))
		c.Advance(10 * time.Minute)
		setRoom(t, c, 10) // four hang, the others would fit but may not
		require.NoError(t, c.Migrate("n", "m4", "vm4", Outcome{Hang: true}))
		require.NoError(t, c.Migrate("n", "m5", "vm5", Outcome{Hang: true}))
		c.Advance(time.Hour)
		require.Empty(t, c.Violations())
	})
	t.Run("by the migrations of others", func(t *testing.T) {
		c := vms(t, Config{Nodes: 2}, 1, 0)
		limiter(c, never)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(time.Minute)
		for i := range 5 {
			require.NoError(t, c.CreateVMI(NewVMI("others", fmt.Sprintf("vm%d", i), 1, quantities("memory", "1Gi")["memory"])))
		}
		c.Advance(time.Minute)
		for i := range 5 {
			require.NoError(t, c.Migrate("others", fmt.Sprintf("m%d", i), fmt.Sprintf("vm%d", i), Outcome{Hang: true}))
		}
		c.Advance(time.Hour)
		require.Equal(t, 4, strings.Count(phases(c), "Running"))
		require.Empty(t, c.Violations())
	})
	t.Run("when it was aborted", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		limiter(c, never)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		c.Advance(10 * time.Minute)
		require.NoError(t, c.Abort("n", "m"))
		c.Advance(time.Hour)
		require.Empty(t, c.Violations())
	})
}

func TestGained(t *testing.T) {
	c := vms(t, Config{Slack: time.Minute}, 1, 0)
	limiter(c, func(migration.Snapshot, *corev1.ResourceQuota) corev1.ResourceList { return room(2) })
	c.Advance(time.Second)
	require.NoError(t, c.Tenant("n").CreatePod(quantities("cpu", "1m", "memory", "1")))
	require.Equal(t, []Invariant{Gained, Gained}, broken(c.Violations()))
	require.Regexp(t, "^tenant-n got pods regular-..... in: limits.cpu of quota n/n is used up to 1016m, of late no more than 1015m was right$", c.Violations()[0].Detail)
}

func TestNotGained(t *testing.T) {
	t.Run("by theft of headroom", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		timing := *c.config.Timing
		limiter(c, effective)
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{}))
		require.True(t, c.Until(time.Minute, func() bool { return list(c.Quota("n", "n").Status.Hard) == list(room(2)) }), "%v", timing)
		c.admission.own = map[string]*corev1.ResourceQuota{}
		c.admission.cached["n"]["n"] = []cachedQuota{{quota: c.Quota("n", "n")}}
		require.NoError(t, c.Tenant("n").Steal(), "it is open until the target pod comes")
		c.Advance(time.Minute)
		require.Equal(t, "Succeeded", phases(c), "it is raised once more")
		require.Empty(t, c.Violations())
	})
	t.Run("by a target pod", func(t *testing.T) {
		c := vms(t, Config{}, 1, 0)
		limiter(c, func(migration.Snapshot, *corev1.ResourceQuota) corev1.ResourceList { return room(3) })
		require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
		c.Advance(time.Minute)
		require.Equal(t, "Running", phases(c))
		require.Empty(t, c.Violations())
	})
	t.Run("within the slack", func(t *testing.T) {
		for after, gained := range map[time.Duration]bool{30 * time.Second: false, 90 * time.Second: true} {
			c := vms(t, Config{Slack: time.Minute}, 1, 1)
			c.Start("us", once(func(context.Context, *Process) error { return nil }))
			c.Advance(10 * time.Minute)
			setRoom(t, c, 1)
			c.quotas.queue.stop() // nothing tells admission
			c.Advance(after)
			require.NoError(t, c.Tenant("n").CreatePod(quantities("cpu", "1m", "memory", "1")))
			require.Equal(t, gained, len(c.Violations()) > 0, after)
		}
	})
}

func TestExposure(t *testing.T) {
	c := vms(t, Config{}, 1, 0)
	c.Advance(time.Minute)
	require.Zero(t, c.Exposure("limits.cpu"), "a full quota exposes nothing")
	c.Start("us", once(func(ctx context.Context, p *Process) error {
		rq, err := p.Client.CoreV1().ResourceQuotas("n").Get(ctx, "n", metav1.GetOptions{})
		require.NoError(t, err)
		rq.Spec.Hard = room(3)
		_, err = p.Client.CoreV1().ResourceQuotas("n").Update(ctx, rq, metav1.UpdateOptions{})
		return err
	}))
	require.True(t, c.Until(time.Minute, func() bool { return list(c.Quota("n", "n").Status.Hard) == list(room(3)) }))
	before := c.Exposure("limits.cpu")
	require.Zero(t, before)
	c.Advance(10 * time.Second)
	require.InDelta(t, 10*2.030, c.Exposure("limits.cpu"), 1e-9, "two VMs of room for ten seconds")
	require.InDelta(t, 10*2*2773714688.0, c.Exposure("limits.memory"), 1e-3)

	require.NoError(t, c.Migrate("n", "m", "vm0", Outcome{Hang: true}))
	c.Advance(time.Minute)
	require.Equal(t, "Running", phases(c))
	before = c.Exposure("limits.cpu")
	c.Advance(10 * time.Second)
	require.InDelta(t, 10*1.015, c.Exposure("limits.cpu")-before, 1e-9, "one is charged")

	require.NoError(t, c.Tenant("n").CreatePod(quantities("cpu", "15m", "memory", "1")))
	c.Advance(time.Second)
	before = c.Exposure("limits.cpu")
	c.Advance(10 * time.Second)
	require.InDelta(t, 10*1, c.Exposure("limits.cpu")-before, 1e-9, "what was stolen lies open no more")
}

func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) []string {
		c := vms(t, Config{Seed: seed}, 3, 0)
		p := limiter(c, func(s migration.Snapshot, rq *corev1.ResourceQuota) corev1.ResourceList {
			return quota.Effective(room(3), migration.InFlight(s), rq.Status.Used)
		})
		limiter(c, effective)
		c.StartRancher(RancherConfig{Latency: Span{1 * ms, 30 * ms}}).Restart()
		c.Inject(c.Chance(map[Fault]float64{Conflict: 0.1, Timeout: 0.1, Crash: 0.05}))
		var lines []string
		for range 10 {
			for _, act := range []func() error{
				func() error { return c.Tenant("n").Migrate(Outcome{}) }, c.Tenant("n").Abort, c.Tenant("n").Steal, c.Tenant("n").DeletePod,
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
		return append(lines, fmt.Sprint(c.Exposure("limits.memory"), c.store.version))
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
}

func TestHistoryTellsWhatMatters(t *testing.T) {
	c := vms(t, Config{Timing: steady()}, 1, 1)
	c.history = history{}
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
