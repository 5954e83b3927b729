package fake

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

const ms = time.Millisecond

// newConfigMap is what the processes in these tests write.
func newConfigMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
}

// once returns a setup whose Reconcile runs work one time in each life.
func once(work func(ctx context.Context, p *Process) error) func(*Process) Program {
	return func(p *Process) Program {
		done := false
		return Program{Reconcile: func(ctx context.Context, _ string) (time.Duration, error) {
			if done {
				return 0, nil
			}
			done = true
			return 0, work(ctx, p)
		}}
	}
}

func TestProcessIsWokenByItsCaches(t *testing.T) {
	c := New(Config{Timing: &Timing{Cache: Span{10 * ms, 10 * ms}}})
	require.NoError(t, c.CreateNamespace("a", nil))
	var woken []string
	p := c.Start("us", func(*Process) Program {
		return Program{Reconcile: func(_ context.Context, namespace string) (time.Duration, error) {
			woken = append(woken, c.elapsed().String()+" "+namespace)
			return 0, nil
		}}
	})
	c.Advance(time.Second)
	require.NoError(t, c.CreateNamespace("b", quantities("pods", "1")))
	c.Advance(time.Second)
	require.NoError(t, createAs(c, "us", newConfigMap("x")))
	c.Advance(time.Second)
	require.NoError(t, c.CreateVMI(NewVMI("a", "vm", 1, gibi(1))))
	c.Advance(10 * ms)
	p.Enqueue("c")
	c.Advance(0)
	require.Equal(t, []string{
		"0s a",    // the start
		"1.01s b", // the namespace with its quota, and the status of that
		"3.01s a", "3.01s c",
	}, woken)
}

func TestProgramSaysWhichNamespaceAnEventConcerns(t *testing.T) {
	c := New(Config{Timing: &Timing{}})
	var woken []string
	c.Start("us", func(*Process) Program {
		return Program{
			Reconcile: func(_ context.Context, namespace string) (time.Duration, error) {
				woken = append(woken, namespace)
				return 0, nil
			},
			Namespace: func(object any) string {
				if m, ok := object.(*corev1.ConfigMap); ok {
					return m.Name
				}
				return ""
			},
		}
	})
	require.NoError(t, createAs(c, "us", newConfigMap("x")))
	require.NoError(t, c.CreateNamespace("b", quantities("pods", "1")))
	c.Advance(time.Second)
	require.Equal(t, []string{"x"}, woken)
}

func TestProcessRetries(t *testing.T) {
	c := New(Config{Timing: &Timing{}})
	require.NoError(t, c.CreateNamespace("n", nil))
	var runs []time.Duration
	c.Start("us", func(*Process) Program {
		return Program{Reconcile: func(context.Context, string) (time.Duration, error) {
			runs = append(runs, c.elapsed())
			switch len(runs) {
			case 1, 2, 4:
				return 0, errors.New("it fails")
			case 3:
				return time.Minute, nil
			}
			return 0, nil
		}}
	})
	c.Advance(time.Hour)
	require.Equal(t, []time.Duration{0, 5 * ms, 15 * ms, time.Minute + 15*ms, time.Minute + 20*ms}, runs)
}

func TestCallsTakeTimeAndOthersGoOn(t *testing.T) {
	c := New(Config{Timing: &Timing{Call: Span{10 * ms, 10 * ms}}})
	require.NoError(t, c.CreateNamespace("n", quantities("pods", "1")))
	c.Advance(time.Second)
	var conflict error
	c.Start("us", once(func(ctx context.Context, p *Process) error {
		quotas := p.Client.CoreV1().ResourceQuotas("n")
		rq, err := quotas.Get(ctx, "n", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, epoch.Add(time.Second+20*ms), p.Now())
		rq.Spec.Hard["pods"] = milli(2000)
		_, conflict = quotas.Update(ctx, rq, metav1.UpdateOptions{})
		return nil
	}))
	c.clock.after(15*ms, func() {
		require.NoError(t, c.EditQuota("n", "n", func(hard corev1.ResourceList) { hard["pods"] = milli(3000) }))
	})
	c.Advance(time.Second)
	require.True(t, apierrors.IsConflict(conflict), "somebody wrote between the read and the write")
	require.Equal(t, "{pods=3}", list(c.Quota("n", "n").Spec.Hard))
	require.Zero(t, c.Writes("us", ResourceQuotas))
}

func TestFaults(t *testing.T) {
	for fault, want := range map[Fault]struct {
		is      func(error) bool
		written bool
	}{
		NoFault:        {func(err error) bool { return err == nil }, true},
		Conflict:       {apierrors.IsConflict, false},
		Forbidden:      {apierrors.IsForbidden, false},
		Timeout:        {apierrors.IsTimeout, false},
		TimeoutWritten: {apierrors.IsTimeout, true},
		ServerError:    {apierrors.IsInternalError, false},
	} {
		t.Run(string(fault), func(t *testing.T) {
			c := New(Config{})
			require.NoError(t, c.CreateNamespace("n", nil))
			var calls []Call
			c.Inject(func(call Call) Fault {
				calls = append(calls, call)
				return fault
			})
			var answer error
			c.Start("us", once(func(ctx context.Context, p *Process) error {
				_, answer = p.Client.CoreV1().ConfigMaps("n").Create(ctx, newConfigMap("x"), metav1.CreateOptions{})
				return nil
			}))
			c.Advance(time.Second)
			require.True(t, want.is(answer), "%v", answer)
			require.Equal(t, want.written, c.store.get(ConfigMaps, "n", "x") != nil)
			require.Equal(t, want.written, c.Writes("us", ConfigMaps) == 1)
			require.Empty(t, c.processes[0].clientset.Actions(), "they would fill the memory")
			if fault != NoFault {
				require.Contains(t, strings.Join(c.History(), "\n"), "us suffers "+string(fault)+" at call 1: create configmaps n/x")
			}
			require.Equal(t, []Call{{Process: "us", Number: 1, Verb: "create", Kind: ConfigMaps, Namespace: "n", Name: "x"}}, calls)
		})
	}
}

func TestReadsHaveNoConflicts(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateNamespace("n", nil))
	c.Inject(func(Call) Fault { return Conflict })
	var answer error
	c.Start("us", once(func(ctx context.Context, p *Process) error {
		_, answer = p.Client.CoreV1().ConfigMaps("n").List(ctx, metav1.ListOptions{})
		return nil
	}))
	c.Advance(time.Second)
	require.NoError(t, answer)
}

func TestCrash(t *testing.T) {
	for fault, written := range map[Fault]bool{Crash: false, CrashWritten: true} {
		t.Run(string(fault), func(t *testing.T) {
			c := New(Config{Timing: &Timing{Restart: Span{time.Second, time.Second}}})
			require.NoError(t, c.CreateNamespace("n", nil))
			c.Inject(func(call Call) Fault {
				if call.Number == 1 {
					return fault
				}
				return NoFault
			})
			lives, survived := 0, 0
			c.Start("us", func(p *Process) Program {
				lives++
				return once(func(ctx context.Context, p *Process) error {
					_, err := p.Client.CoreV1().ConfigMaps("n").Create(ctx, newConfigMap("x"), metav1.CreateOptions{})
					survived++
					require.Equal(t, written, apierrors.IsAlreadyExists(err))
					return nil
				})(p)
			})
			c.Advance(time.Second - 1)
			require.Equal(t, written, c.store.get(ConfigMaps, "n", "x") != nil)
			require.Equal(t, 1, lives)
			require.Zero(t, survived, "nothing runs after a crash")
			c.Advance(time.Second)
			require.Equal(t, 2, lives)
			require.Equal(t, 1, survived)
		})
	}
}

func TestCrashFromOutside(t *testing.T) {
	c := New(Config{Timing: &Timing{Call: Span{10 * ms, 10 * ms}}})
	require.NoError(t, c.CreateNamespace("n", nil))
	lives, answered := 0, 0
	p := c.Start("us", func(p *Process) Program {
		lives++
		return once(func(ctx context.Context, p *Process) error {
			_, err := p.Client.CoreV1().ConfigMaps("n").Create(ctx, newConfigMap("x"), metav1.CreateOptions{})
			require.True(t, apierrors.IsAlreadyExists(err))
			answered++
			return nil
		})(p)
	})
	c.clock.after(15*ms, func() { p.Crash(time.Hour) })
	c.Advance(20 * ms)
	require.NotNil(t, c.store.get(ConfigMaps, "n", "x"), "the call had been carried out")
	require.Zero(t, answered)
	p.Crash(time.Minute) // while it is down
	c.Advance(30 * time.Minute)
	require.Equal(t, 2, lives)
	require.Equal(t, 1, answered, "by the second life, which finds what the first has done")
	c.Advance(2 * time.Hour)
	require.Equal(t, 2, lives, "it was started once")
}

func TestDeadProcessDoesNothing(t *testing.T) {
	c := New(Config{Timing: &Timing{}})
	require.NoError(t, c.CreateNamespace("n", nil))
	var runs []time.Duration
	p := c.Start("us", func(*Process) Program {
		return Program{Reconcile: func(context.Context, string) (time.Duration, error) {
			runs = append(runs, c.elapsed())
			return 10 * time.Second, nil
		}}
	})
	c.Advance(time.Second)
	p.Crash(time.Minute)
	c.Advance(time.Minute)
	require.Equal(t, []time.Duration{0, 61 * time.Second}, runs)
	require.Contains(t, c.History(), "1s us crashes")
	require.Contains(t, c.History(), "1m1s us starts")
}

func TestSetupMayCallTheServerAndCrash(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateNamespace("n", nil))
	c.Inject(func(call Call) Fault {
		if call.Number == 1 {
			return Crash
		}
		return NoFault
	})
	var order []string
	c.Start("us", func(p *Process) Program {
		order = append(order, "setup")
		p.Enqueue("n")
		_, err := p.Client.CoreV1().ConfigMaps("n").List(context.Background(), metav1.ListOptions{})
		require.NoError(t, err)
		order = append(order, "is done")
		return Program{Reconcile: func(_ context.Context, namespace string) (time.Duration, error) {
			order = append(order, namespace)
			return 0, nil
		}}
	})
	require.Equal(t, []string{"setup"}, order)
	c.Advance(time.Minute)
	require.Equal(t, []string{"setup", "setup", "is done", "n"}, order)
}

func TestProcessOfABadProgramPanics(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateNamespace("n", nil))
	c.Start("us", once(func(ctx context.Context, p *Process) error {
		_, err := p.Client.CoreV1().ConfigMaps("n").List(ctx, metav1.ListOptions{})
		require.NoError(t, err)
		panic("a bug")
	}))
	require.PanicsWithValue(t, "a bug", func() { c.Advance(time.Second) })
}

func TestReplicas(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateNamespace("n", nil))
	callers := map[string]int{}
	c.Inject(func(call Call) Fault {
		callers[call.Process]++
		return NoFault
	})
	for range 2 {
		c.Start("us", once(func(ctx context.Context, p *Process) error {
			_, err := p.Client.CoreV1().ConfigMaps("n").Get(ctx, "x", metav1.GetOptions{})
			require.True(t, apierrors.IsNotFound(err))
			return nil
		}))
	}
	c.Advance(time.Second)
	require.Equal(t, map[string]int{"us": 1, "us-2": 1}, callers)
}

func TestPatchMigration(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateNamespace("n", nil))
	require.NoError(t, c.CreateMigration(newMigration("n", "m", "vm")))
	var calls []Call
	c.Inject(func(call Call) Fault {
		calls = append(calls, call)
		return NoFault
	})
	c.Start("us", once(func(ctx context.Context, p *Process) error {
		require.True(t, apierrors.IsNotFound(p.PatchMigration(ctx, "n", "missing", []byte(`{}`))))
		return p.PatchMigration(ctx, "n", "m", []byte(`{"metadata":{"annotations":{"a":"b"}}}`))
	}))
	c.Advance(time.Second)
	require.Equal(t, "b", c.Migration("n", "m").Annotations["a"])
	require.Equal(t, Call{Process: "us", Number: 2, Verb: "patch", Kind: Migrations, Namespace: "n", Name: "m"}, calls[1])
	require.Equal(t, 1, c.Writes("us", Migrations))
}

func TestChance(t *testing.T) {
	c := New(Config{Seed: 1})
	decide := c.Chance(map[Fault]float64{Conflict: 0.2, Timeout: 0.1})
	drawn := map[Fault]int{}
	for range 10000 {
		drawn[decide(Call{})]++
	}
	require.InDelta(t, 7000, drawn[NoFault], 300)
	require.InDelta(t, 2000, drawn[Conflict], 300)
	require.InDelta(t, 1000, drawn[Timeout], 300)
	require.Len(t, drawn, 3)
}

// watched starts a process that notes which events reach it, and returns it.
func watched(c *Cluster, told *[]any) *Process {
	return c.Start("us", func(*Process) Program {
		return Program{
			Reconcile: func(context.Context, string) (time.Duration, error) { return 0, nil },
			Namespace: func(object any) string {
				*told = append(*told, object)
				return ""
			},
		}
	})
}

func cachedMap(p *Process, name string) *corev1.ConfigMap {
	found, _, err := p.Caches[ConfigMaps].GetByKey("n/" + name)
	if err != nil {
		return nil
	}
	m, _ := found.(*corev1.ConfigMap)
	return m
}

func TestCachesLag(t *testing.T) {
	c := New(Config{Timing: &Timing{Cache: Span{10 * ms, 10 * ms}}})
	var told []any
	p := watched(c, &told)
	p.Lag(ConfigMaps, Span{time.Second, time.Second})
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	_, err := maps.Create(context.Background(), newConfigMap("x"), metav1.CreateOptions{})
	require.NoError(t, err)
	enforce(t, c, newQuota("n", "q", nil)) // and a second goes by
	require.NotNil(t, cachedMap(p, "x"))
	require.NotEmpty(t, p.Caches[ResourceQuotas].List())

	p.Lag(ConfigMaps, Span{})
	require.NoError(t, maps.Delete(context.Background(), "x", metav1.DeleteOptions{}))
	c.Advance(9 * ms)
	require.NotNil(t, cachedMap(p, "x"))
	c.Advance(1 * ms)
	require.Nil(t, cachedMap(p, "x"))
}

func TestCachesNeverGoBack(t *testing.T) {
	c := New(Config{Timing: &Timing{}})
	var told []any
	p := watched(c, &told)
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	p.Lag(ConfigMaps, Span{time.Second, time.Second})
	x, err := maps.Create(context.Background(), newConfigMap("x"), metav1.CreateOptions{})
	require.NoError(t, err)
	p.Lag(ConfigMaps, Span{})
	x.Data = map[string]string{"a": "b"}
	_, err = maps.Update(context.Background(), x, metav1.UpdateOptions{})
	require.NoError(t, err)
	c.Advance(time.Second - 1)
	require.Nil(t, cachedMap(p, "x"), "the later event waits for the earlier")
	c.Advance(1)
	require.Equal(t, "b", cachedMap(p, "x").Data["a"])
	require.Len(t, told, 2)
}

func TestDroppedWatch(t *testing.T) {
	ctx, c := context.Background(), New(Config{Timing: &Timing{Cache: Span{10 * ms, 10 * ms}}})
	var told []any
	p := watched(c, &told)
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	for _, name := range []string{"stays", "goes", "changes"} {
		_, err := maps.Create(ctx, newConfigMap(name), metav1.CreateOptions{})
		require.NoError(t, err)
	}
	c.Advance(time.Second)
	told = nil
	p.DropWatch(ConfigMaps, time.Minute)
	p.DropWatch(ConfigMaps, time.Second) // it is dropped already
	require.NoError(t, maps.Delete(ctx, "goes", metav1.DeleteOptions{}))
	_, err := maps.Create(ctx, newConfigMap("came and went"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, maps.Delete(ctx, "came and went", metav1.DeleteOptions{}))
	changed := newConfigMap("changes")
	changed.Data = map[string]string{"a": "b"}
	_, err = maps.Update(ctx, changed, metav1.UpdateOptions{})
	require.NoError(t, err)
	c.Advance(time.Minute - 1)
	require.Empty(t, told)
	require.NotNil(t, cachedMap(p, "goes"))
	c.Advance(1)
	require.Nil(t, cachedMap(p, "goes"))
	require.Equal(t, "b", cachedMap(p, "changes").Data["a"])
	require.Len(t, told, 2)
	tombstone, ok := told[1].(cache.DeletedFinalStateUnknown)
	require.True(t, ok)
	require.Equal(t, "n/goes", tombstone.Key)
	require.Empty(t, NamespaceOf(tombstone), "it is no record")
	require.Equal(t, "n", NamespaceOf(cache.DeletedFinalStateUnknown{Obj: newQuota("n", "x", nil)}))

	require.NoError(t, maps.Delete(ctx, "stays", metav1.DeleteOptions{}))
	c.Advance(10 * ms)
	require.Nil(t, cachedMap(p, "stays"), "it watches again")
}

func TestEventsOnTheirWayAreLostWithTheWatch(t *testing.T) {
	c := New(Config{Timing: &Timing{Cache: Span{10 * ms, 10 * ms}}})
	var told []any
	p := watched(c, &told)
	require.NoError(t, createAs(c, "user", newConfigMap("x")))
	p.DropWatch(ConfigMaps, time.Minute)
	c.Advance(time.Second)
	require.Nil(t, cachedMap(p, "x"))
	c.Advance(time.Minute)
	require.NotNil(t, cachedMap(p, "x"))
}

func TestCrashListsAnew(t *testing.T) {
	c := New(Config{Timing: &Timing{Cache: Span{time.Hour, time.Hour}}})
	var told []any
	p := watched(c, &told)
	before := p.Caches[ConfigMaps]
	require.NoError(t, createAs(c, "user", newConfigMap("x")))
	p.Crash(time.Second)
	c.Advance(time.Second)
	require.NotNil(t, cachedMap(p, "x"))
	c.Advance(2 * time.Hour)
	require.Empty(t, before.List(), "nothing reaches a dead process")
	require.Empty(t, told)
}

func TestSnapshotOfCaches(t *testing.T) {
	c := New(Config{})
	p := c.Start("us", once(func(context.Context, *Process) error { return nil }))
	require.NoError(t, c.CreateVMI(NewVMI("n", "b", 1, gibi(1))))
	require.NoError(t, c.CreateVMI(NewVMI("n", "a", 1, gibi(1))))
	require.NoError(t, c.CreateVMI(NewVMI("m", "c", 1, gibi(1))))
	require.NoError(t, c.CreateMigration(newMigration("n", "m", "a")))
	c.Advance(time.Minute)
	seen, is := p.Caches.Snapshot("n"), c.Snapshot("n")
	require.ElementsMatch(t, is.VMIs, seen.VMIs)
	require.ElementsMatch(t, is.Pods, seen.Pods)
	require.Equal(t, is.Migrations, seen.Migrations)
	require.Len(t, seen.VMIs, 2)
	require.Len(t, seen.Pods, 3)
	require.Equal(t, c.Now(), is.Now)
	require.Nil(t, is.Namespace)
	require.NoError(t, c.CreateNamespace("n", nil))
	require.Equal(t, "n", c.Snapshot("n").Namespace.Name)
}
