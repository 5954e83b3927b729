package rancher_test

import (
	"context"
	"errors"
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

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A process is what Rancher's has: informers, the ledger in ConfigMaps, the applier in a
// loop.
type process struct {
	t         *testing.T
	clientset *kubefake.Clientset
	record    *configmap.Ledger
	stop      context.CancelFunc
	done      chan struct{}
}

func startProcess(t *testing.T, clientset *kubefake.Clientset) *process {
	ctx, stop := context.WithCancel(context.Background())
	p := &process{t: t, clientset: clientset, stop: stop, done: make(chan struct{})}
	configMaps := informers.NewSharedInformerFactoryWithOptions(clientset, 0, informers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
	quotas := informers.NewSharedInformerFactory(clientset, 0).Core().V1().ResourceQuotas()
	p.record = configmap.New(clientset.CoreV1(), system, configmap.WithInformer(configMaps))
	shim, err := rancher.New(rancher.Config{Ledger: p.record})
	require.NoError(t, err)
	a, err := shim.Applier(applier.Config{Quotas: clientset.CoreV1(), Now: epoch})
	require.NoError(t, err)
	l, err := loop.New(loop.Config{
		Look: func(ctx context.Context, namespace string) (time.Duration, error) {
			result, err := a.Apply(ctx, namespace)
			return result.RetryAfter, err
		},
		Now: time.Now, Gap: time.Millisecond, Spread: time.Millisecond,
	})
	require.NoError(t, err)
	_, err = p.record.OnChange(l.Add)
	require.NoError(t, err)
	_, err = quotas.Informer().AddEventHandler(l.Handler(func(o any) string { return o.(*corev1.ResourceQuota).Namespace }))
	require.NoError(t, err)
	go configMaps.Run(ctx.Done())
	go quotas.Informer().Run(ctx.Done())
	require.True(t, cache.WaitForCacheSync(ctx.Done(), configMaps.HasSynced, quotas.Informer().HasSynced))
	go func() {
		defer close(p.done)
		l.Run(ctx)
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
func TestChangesOfTheLedgerAreApplied(t *testing.T) {
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
		})
	}
}

// What is raised when the process starts is lowered if nothing is in flight.
func TestRaisesAreLookedAtAtTheStart(t *testing.T) {
	startProcess(t, kubefake.NewSimpleClientset(raised("limits.cpu=4", "limits.cpu=5"))).eventually("limits.cpu=4")
}

// An error that passes is tried again.
func TestErrorsAreTriedAgain(t *testing.T) {
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
	require.EqualValues(t, 4, calls.Load())
}
