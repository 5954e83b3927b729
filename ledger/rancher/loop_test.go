package rancher_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A process is what Rancher's has: informers, the ledger in ConfigMaps, the applier in a
// Loop.
type process struct {
	t         *testing.T
	clientset *kubefake.Clientset
	record    *configmap.Ledger
	failed    chan error
	stop      context.CancelFunc
	done      chan struct{}
}

func startProcess(t *testing.T, clientset *kubefake.Clientset) *process {
	ctx, stop := context.WithCancel(context.Background())
	p := &process{t: t, clientset: clientset, failed: make(chan error, 1000), stop: stop, done: make(chan struct{})}
	configMaps := informers.NewSharedInformerFactoryWithOptions(clientset, 0, informers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
	quotas := informers.NewSharedInformerFactory(clientset, 0).Core().V1().ResourceQuotas()
	p.record = configmap.New(clientset.CoreV1(), system, configmap.WithInformer(configMaps))
	shim, err := rancher.New(rancher.Config{Ledger: p.record})
	require.NoError(t, err)
	a, err := shim.Applier(applier.Config{Quotas: clientset.CoreV1(), Now: epoch})
	require.NoError(t, err)
	loop := rancher.NewLoop(a, func(_ string, err error) { p.failed <- err })
	_, err = p.record.OnChange(loop.Enqueue)
	require.NoError(t, err)
	_, err = quotas.Informer().AddEventHandler(loop.Handler())
	require.NoError(t, err)
	go configMaps.Run(ctx.Done())
	go quotas.Informer().Run(ctx.Done())
	require.True(t, cache.WaitForCacheSync(ctx.Done(), configMaps.HasSynced, quotas.Informer().HasSynced))
	go func() {
		defer close(p.done)
		loop.Run(ctx, 2)
	}()
	t.Cleanup(p.end)
	return p
}

func (p *process) end() {
	p.stop()
	<-p.done
}

func (p *process) eventually(limits string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		rq, err := p.clientset.CoreV1().ResourceQuotas("tenant").Get(ctx, "q", metav1.GetOptions{})
		require.NoError(p.t, err)
		return amounts(rq.Spec.Hard) == limits
	}, time.Minute, time.Millisecond)
}

// fullQuota is one of four cores in which all are used.
func fullQuota() *corev1.ResourceQuota {
	return used(quotaOf("limits.cpu=4"), "limits.cpu=4")
}

// A change of the ledger is applied without any event of a namespace or a quota, and by
// two replicas as well as by one.
func TestLoopAppliesChangesOfTheLedger(t *testing.T) {
	for name, replicas := range map[string]int{"one": 1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			clientset := kubefake.NewSimpleClientset(fullQuota())
			p := startProcess(t, clientset)
			for range replicas - 1 {
				startProcess(t, clientset)
			}
			for range 3 {
				require.NoError(t, p.record.Replace(ctx, "tenant", nil))
				p.eventually("limits.cpu=4")
				require.NoError(t, p.record.Replace(ctx, "tenant", []quota.Migration{charged("m1", "limits.cpu=1"), blocked("m2", "limits.cpu=1")}))
				p.eventually("limits.cpu=6")
			}
			require.NoError(t, p.record.Replace(ctx, "tenant", nil))
			p.eventually("limits.cpu=4")
			require.Empty(t, p.failed)
		})
	}
}

// What is raised when the process starts is lowered if nothing is in flight.
func TestLoopLooksAtAllAtTheStart(t *testing.T) {
	startProcess(t, kubefake.NewSimpleClientset(raised("limits.cpu=4", "limits.cpu=5"))).eventually("limits.cpu=4")
}

// An error that passes is tried again.
func TestLoopTriesAgain(t *testing.T) {
	clientset := kubefake.NewSimpleClientset(fullQuota())
	var calls atomic.Int32
	clientset.PrependReactor("update", "resourcequotas", func(clienttesting.Action) (bool, runtime.Object, error) {
		if calls.Add(1) <= 3 {
			return true, nil, apierrors.NewInternalError(errors.New("down"))
		}
		return false, nil, nil
	})
	p := startProcess(t, clientset)
	require.NoError(t, p.record.Replace(ctx, "tenant", []quota.Migration{blocked("m1", "limits.cpu=1")}))
	p.eventually("limits.cpu=5")
	require.ErrorContains(t, <-p.failed, "write")
	require.EqualValues(t, 4, calls.Load())
}

// What has to be repaired by a person is left to the pauses of the applier.
func TestErrorsThatPass(t *testing.T) {
	down := errors.New("down")
	result := func(errs ...error) (result applier.Result) {
		for _, err := range errs {
			result.Quotas = append(result.Quotas, applier.QuotaResult{Err: err})
		}
		return result
	}
	require.True(t, rancher.Passes(applier.Result{}, down), "the ledger or the list")
	require.False(t, rancher.Passes(applier.Result{}, ledger.ErrPartial))
	require.False(t, rancher.Passes(result(nil), ledger.ErrPartial))
	require.True(t, rancher.Passes(result(down), down))
	require.False(t, rancher.Passes(result(applier.ErrForbidden, nil), applier.ErrForbidden))
	require.False(t, rancher.Passes(result(applier.ErrUnreadable), applier.ErrUnreadable))
	require.True(t, rancher.Passes(result(applier.ErrForbidden, down), down), "one of them does")
}

func TestLoopEnds(t *testing.T) {
	p := startProcess(t, kubefake.NewSimpleClientset())
	var group sync.WaitGroup
	for range 3 {
		group.Add(1)
		go func() { defer group.Done(); p.end() }()
	}
	group.Wait()
}

func TestLoopIgnoresWhatHasNoNamespace(t *testing.T) {
	s := newStore(t)
	asked := make(chan string, 10)
	a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch, List: func(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
		asked <- namespace
		return nil, nil
	}})
	require.NoError(t, err)
	loop := rancher.NewLoop(a, nil)
	loop.Enqueue("")
	handler := loop.Handler()
	handler.OnDelete("nothing")
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: "tenant/q", Obj: quotaOf("pods=1")})
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { loop.Run(running, 0); close(done) }()
	require.Equal(t, "tenant", <-asked)
	stop()
	<-done
	require.Empty(t, asked)
}
