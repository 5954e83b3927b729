package rancher_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A downstream is a cluster with one quota of four cores, which are used up.
type downstream struct {
	*testing.T
	client  *fake.Clientset
	ledger  *configmap.Ledger // another process writes it
	watches chan string       // that have begun, by resource
	watched *watchers
}

// Watchers are all watches that have begun.
type watchers struct {
	mu  sync.Mutex
	all []*watcher
}

// A watcher takes its time to end.
type watcher struct {
	watch.Interface
	ended atomic.Bool
}

func (w *watcher) Stop() {
	time.Sleep(20 * time.Millisecond)
	w.Interface.Stop()
	w.ended.Store(true)
}

func (w *watchers) add(inner watch.Interface) *watcher {
	one := &watcher{Interface: inner}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, one)
	return one
}

// ended reports whether all have.
func (w *watchers) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.all, func(one *watcher) bool { return !one.ended.Load() })
}

func newDownstream(t *testing.T) *downstream {
	rq := scaledBy("limits.cpu=4")
	rq.Labels = map[string]string{rancher.QuotaLabel: "true"}
	rq.Status.Used = listOf("limits.cpu=4")
	rq.ResourceVersion = "0"
	keeper := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: rancher.DefaultNamespace}}
	d := &downstream{T: t, client: fake.NewClientset(rq, keeper), watches: make(chan string, 100), watched: &watchers{}}
	// A fake clientset does not replay what happened between a list and the watch after it.
	d.client.PrependWatchReactor("*", func(action k8stesting.Action) (bool, watch.Interface, error) {
		w, err := d.client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		d.watches <- action.GetResource().Resource
		return true, d.watched.add(w), err
	})
	// Nor does it make resourceVersions, without which no informer's handler sees a change.
	var version atomic.Int64
	d.client.PrependReactor("*", "*", func(action k8stesting.Action) (bool, kruntime.Object, error) {
		if write, ok := action.(k8stesting.CreateAction); ok { // updates are, too
			object, _ := write.GetObject().(metav1.Object)
			object.SetResourceVersion(fmt.Sprint(version.Add(1)))
		}
		return false, nil, nil
	})
	d.ledger = configmap.New(d.client.CoreV1(), rancher.DefaultNamespace)
	return d
}

// start starts a Shim, and waits until it sees what the ledger says.
func (d *downstream) start(configure func(*rancher.Config)) *rancher.Shim {
	d.Helper()
	shim := d.begin(configure)
	for resource := ""; resource != "configmaps"; {
		resource = <-d.watches
	}
	return shim
}

func (d *downstream) begin(configure func(*rancher.Config)) *rancher.Shim {
	d.Helper()
	config := rancher.Config{Client: d.client, Now: time.Now}
	if configure != nil {
		configure(&config)
	}
	shim, err := rancher.Start(d.Context(), config)
	require.NoError(d, err)
	d.Cleanup(shim.Stop)
	return shim
}

// record has migrations in flight that are charged, each for one core more than static.
func (d *downstream) record(uids ...types.UID) {
	d.Helper()
	var inFlight []quota.Migration
	for _, uid := range uids {
		inFlight = append(inFlight, quota.Migration{UID: uid, VMI: "vm", State: quota.Charged, Surge: listOf("limits.cpu=1")})
	}
	require.NoError(d, d.ledger.Replace(context.Background(), "tenant", inFlight))
}

func (d *downstream) quota() *corev1.ResourceQuota {
	rq, err := d.client.CoreV1().ResourceQuotas("tenant").Get(context.Background(), "default-gn4d2", metav1.GetOptions{})
	require.NoError(d, err)
	return rq
}

// enforces waits for limits. Nothing but status.hard may have been written.
func (d *downstream) enforces(limits string) {
	d.Helper()
	require.Eventually(d, func() bool { return amounts(d.quota().Status.Hard) == limits }, time.Minute, time.Millisecond)
	require.Equal(d, "limits.cpu=4", amounts(d.quota().Spec.Hard))
	require.Equal(d, map[string]string{"keep": "me"}, d.quota().Annotations)
	for _, action := range d.client.Actions() {
		if action.GetResource().Resource == "resourcequotas" {
			call := action.GetVerb() + "/" + action.GetSubresource()
			require.Contains(d, []string{"list/", "watch/", "get/", "update/status"}, call)
		}
	}
}

func TestStartNeedsClientAndNow(t *testing.T) {
	for _, config := range []rancher.Config{{Now: time.Now}, {Client: fake.NewClientset()}} {
		_, err := rancher.Start(t.Context(), config)
		require.Error(t, err)
	}
}

func TestEnforcesWhatTheLedgerSays(t *testing.T) {
	d := newDownstream(t)
	d.record("a")
	d.start(nil)
	d.enforces("limits.cpu=5")
	d.record("a", "b")
	d.enforces("limits.cpu=6")
	d.record()
	d.enforces("limits.cpu=4")
}

func TestAnotherNamespaceOfTheLedger(t *testing.T) {
	d := newDownstream(t)
	d.ledger = configmap.New(d.client.CoreV1(), "harvester-system")
	d.keep("harvester-system")
	d.start(func(c *rancher.Config) { c.Namespace = "harvester-system" })
	d.record("a")
	d.enforces("limits.cpu=5")
}

// As long as the ledger has not said anything, nothing else is watched.
func TestIdle(t *testing.T) {
	d := newDownstream(t)
	before := runtime.NumGoroutine()
	d.start(nil).Stop()
	d.goroutines(before)
	d.start(nil)
	for _, action := range d.client.Actions() {
		require.NotEqual(t, "resourcequotas", action.GetResource().Resource)
	}
	d.record("a")
	d.enforces("limits.cpu=5")
}

// What kube-controller-manager resets comes back by the event of the quota.
func TestPutsBackWhatWasReset(t *testing.T) {
	d := newDownstream(t)
	d.record("a")
	d.start(nil)
	d.enforces("limits.cpu=5")
	rq := d.quota()
	rq.Status.Hard = listOf("limits.cpu=4")
	_, err := d.client.CoreV1().ResourceQuotas("tenant").UpdateStatus(t.Context(), rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	d.enforces("limits.cpu=5")
}

// A quota that is switched off is left alone, while another one in its namespace is not.
func TestSwitchedOffQuota(t *testing.T) {
	for name, off := range map[string]func(c *rancher.Config, rq *corev1.ResourceQuota){
		"DisabledFor": func(c *rancher.Config, _ *corev1.ResourceQuota) {
			c.DisabledFor = func(rq *corev1.ResourceQuota) bool { return rq.Name == "off" }
		},
		"Harvester's": func(_ *rancher.Config, rq *corev1.ResourceQuota) { rq.Annotations[rancher.HarvesterSkip] = "true" },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDownstream(t)
			rq := d.quota()
			rq.Name, rq.UID = "off", "off"
			d.record("a")
			d.start(func(c *rancher.Config) {
				off(c, rq)
				require.NoError(t, d.client.Tracker().Add(rq))
			})
			d.enforces("limits.cpu=5")
			d.record("a", "b")
			d.enforces("limits.cpu=6")
			require.Equal(t, "update resourcequotasstatus default-gn4d2", written(d.client, "resourcequotas"))
		})
	}
}

// Switched off, nothing is written; switched on, what is needed is.
func TestDisabled(t *testing.T) {
	d := newDownstream(t)
	asked := make(chan bool, 1000)
	var on atomic.Bool
	d.record("a")
	d.start(func(c *rancher.Config) {
		c.Disabled = func() bool {
			asked <- on.Load()
			return !on.Load()
		}
	})
	<-asked
	require.Empty(t, written(d.client, "resourcequotas"))
	on.Store(true)
	d.record("a", "b")
	d.enforces("limits.cpu=6")
}

// Everything of a Shim ends with it, and a second one begins anew. Rancher cancels a start
// that failed, and tries again.
func TestStartAgain(t *testing.T) {
	d := newDownstream(t)
	before := runtime.NumGoroutine()
	for i := range 3 {
		shim := d.start(nil)
		d.record("a", types.UID(fmt.Sprint("b", i)))
		d.enforces("limits.cpu=6")
		d.record()
		d.enforces("limits.cpu=4")
		shim.Stop()
		<-shim.Done()
		require.True(t, d.watched.ended(), "Done is the end of everything")
	}
	d.goroutines(before)
}

// goroutines waits until there are no more than these.
func (d *downstream) goroutines(most int) {
	d.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > most && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	require.LessOrEqual(d, runtime.NumGoroutine(), most)
}

// A cluster that is out of reach does not keep Start or Stop waiting.
func TestClusterOutOfReach(t *testing.T) {
	d := newDownstream(t)
	down := &atomic.Bool{}
	down.Store(true)
	d.client.PrependReactor("list", "*", func(k8stesting.Action) (bool, kruntime.Object, error) {
		return down.Load(), nil, context.DeadlineExceeded
	})
	d.record("a")
	before := runtime.NumGoroutine()
	d.begin(nil).Stop()
	d.goroutines(before)
	d.begin(nil)
	down.Store(false)
	d.enforces("limits.cpu=5")
}

// An informer that the process has anyway is left when the Shim ends, and goes on.
func TestSharedInformer(t *testing.T) {
	d := newDownstream(t)
	factory := informers.NewSharedInformerFactory(d.client, 0)
	quotas := factory.Core().V1().ResourceQuotas().Informer()
	ctx, stop := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	require.True(t, cache.WaitForCacheSync(t.Context().Done(), quotas.HasSynced))
	require.Equal(t, "resourcequotas", <-d.watches)
	before := runtime.NumGoroutine()
	shim := d.start(func(c *rancher.Config) { c.Quotas = quotas })
	d.record("a")
	d.enforces("limits.cpu=5")
	shim.Stop()
	d.goroutines(before)
	require.False(t, quotas.IsStopped())
	second := d.start(func(c *rancher.Config) { c.Quotas = quotas })
	d.record()
	d.enforces("limits.cpu=4")
	second.Stop()
	lists := 0
	for _, action := range d.client.Actions() {
		if action.Matches("list", "resourcequotas") {
			lists++
		}
	}
	require.LessOrEqual(t, lists, 1, "the Shim has no cache of its own")

	stop()
	factory.Shutdown()
	_, err := rancher.Start(t.Context(), rancher.Config{Client: d.client, Now: time.Now, Quotas: quotas})
	require.Error(t, err, "an informer that has ended")
}

// keep has a process of the cluster keep a ledger in namespace.
func (d *downstream) keep(namespace string) {
	require.NoError(d, d.client.Tracker().Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))
}

// forsake ends that.
func (d *downstream) forsake() {
	require.NoError(d, d.client.CoreV1().Namespaces().Delete(d.Context(), rancher.DefaultNamespace, metav1.DeleteOptions{}))
}

// An enforcer stands for a controller of the cluster's own migrations.
type enforcer struct {
	began, ended chan bool // buffered
	running      atomic.Int32
	fails        atomic.Bool
}

func newEnforcer() *enforcer {
	return &enforcer{began: make(chan bool, 100), ended: make(chan bool, 100)}
}

func (e *enforcer) run(ctx context.Context) error {
	e.running.Add(1)
	defer e.running.Add(-1)
	e.began <- true
	if e.fails.Load() {
		return context.DeadlineExceeded
	}
	<-ctx.Done()
	e.ended <- true
	return nil
}

// with has a Shim use e, and ask often.
func (e *enforcer) with(c *rancher.Config) { c.Own, c.Probe = e.run, time.Millisecond }

// serveKubeVirt has the cluster serve KubeVirt's API.
func (d *downstream) serveKubeVirt() {
	d.client.Resources = append(d.client.Resources, &metav1.APIResourceList{GroupVersion: "kubevirt.io/v1"})
}

// Where there is KubeVirt and no ledger, the cluster's own migrations count; where there is a
// ledger, it alone does. Which of both it is may change.
func TestOneSource(t *testing.T) {
	d, e := newDownstream(t), newEnforcer()
	d.serveKubeVirt()
	d.record("a")
	d.start(e.with)
	d.enforces("limits.cpu=5")
	require.Empty(t, e.began, "both at once")

	d.forsake()
	<-e.began
	require.Eventually(t, d.watched.ended, time.Minute, time.Millisecond, "the ledger is still read")
	d.record("a", "b")
	require.Equal(t, "limits.cpu=5", amounts(d.quota().Status.Hard))

	d.keep(rancher.DefaultNamespace)
	<-e.ended
	d.enforces("limits.cpu=6")
	require.Zero(t, e.running.Load(), "both at once")
}

// A cluster with neither has no informers, and none of its quotas is read.
func TestNeitherLedgerNorKubeVirt(t *testing.T) {
	d, e := newDownstream(t), newEnforcer()
	d.forsake()
	d.begin(e.with)
	asked := func() (n int) {
		for _, action := range d.client.Actions() {
			require.NotContains(t, []string{"resourcequotas", "configmaps"}, action.GetResource().Resource)
			if action.Matches("get", "namespaces") {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return asked() > 3 }, time.Minute, time.Millisecond)
	require.Empty(t, e.began)
}

// What ends by itself is begun again, and a Shim that is stopped waits for its end.
func TestOwnIsTriedAgain(t *testing.T) {
	d, e := newDownstream(t), newEnforcer()
	d.serveKubeVirt()
	d.forsake()
	e.fails.Store(true)
	shim := d.begin(e.with)
	for range 3 {
		<-e.began
	}
	e.fails.Store(false)
	require.Eventually(t, func() bool { return e.running.Load() == 1 }, time.Minute, time.Millisecond)
	shim.Stop()
	require.Zero(t, e.running.Load())
	require.Len(t, e.ended, 1)
}

// A cluster that does not answer keeps its source.
func TestSourceIsKept(t *testing.T) {
	d, e := newDownstream(t), newEnforcer()
	d.serveKubeVirt()
	d.forsake()
	asked := make(chan bool, 100)
	var silent atomic.Bool
	d.client.PrependReactor("get", "namespaces", func(k8stesting.Action) (bool, kruntime.Object, error) {
		if !silent.Load() {
			return false, nil, nil
		}
		asked <- true
		return true, nil, context.DeadlineExceeded
	})
	d.begin(e.with)
	<-e.began
	silent.Store(true)
	<-asked
	d.keep(rancher.DefaultNamespace)
	require.Empty(t, e.ended)
	require.EqualValues(t, 1, e.running.Load())
}
