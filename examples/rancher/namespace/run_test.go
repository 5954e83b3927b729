package namespace

import (
	"context"
	"errors"
	"testing"
	"time"

	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

var errLocked = apierrors.NewForbidden(resources, "q", errors.New("users are forbidden from changing resources managed by Rancher"))

// locked is the inner controller where the write lock is on: only a client that
// impersonates writes. Its cache and its client are those of a clientset.
type locked struct {
	wranglercorev1.ResourceQuotaController // the rest is not there
	client                                 kubernetes.Interface
	informer                               cache.SharedIndexInformer
	sudo                                   bool
}

func (l *locked) Update(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if !l.sudo {
		return nil, errLocked
	}
	return l.client.CoreV1().ResourceQuotas(rq.Namespace).Update(ctx, rq, metav1.UpdateOptions{})
}

func (l *locked) WithImpersonation(rest.ImpersonationConfig) (generic.ClientInterface[*corev1.ResourceQuota, *corev1.ResourceQuotaList], error) {
	return &locked{client: l.client, informer: l.informer, sudo: true}, nil
}

func (l *locked) Cache() generic.CacheInterface[*corev1.ResourceQuota] {
	return generic.NewCache[*corev1.ResourceQuota](l.informer.GetIndexer(), resources)
}

func (l *locked) Informer() cache.SharedIndexInformer { return l.informer }

// A cluster has one quota that is used up, the write lock, and a ledger that another process writes.
type cluster struct {
	*testing.T
	client   kubernetes.Interface
	quotas   *locked
	observer *configmap.Ledger
}

func newCluster(t *testing.T) *cluster {
	rq := static()
	rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard, Used: rq.Spec.Hard}
	client := fake.NewClientset(rq)
	factory := informers.NewSharedInformerFactory(client, 0)
	quotas := &locked{client: client, informer: factory.Core().V1().ResourceQuotas().Informer()}
	factory.Start(t.Context().Done())
	t.Cleanup(factory.Shutdown)
	return &cluster{T: t, client: client, quotas: quotas, observer: configmap.New(client.CoreV1(), LedgerNamespace)}
}

// record puts migrations into the ledger that are blocked, each of as many CPUs.
func (c *cluster) record(cpus ...string) {
	c.Helper()
	var migrations []quota.Migration
	for _, n := range cpus {
		migrations = append(migrations, quota.Migration{UID: types.UID("m" + n), State: quota.Blocked, Surge: list("limits.cpu=" + n)})
	}
	require.NoError(c, c.observer.Replace(ctx, "n", migrations))
}

// becomes waits until the limits are limits.
func (c *cluster) becomes(limits string) {
	c.Helper()
	require.Eventually(c, func() bool {
		rq, err := c.client.CoreV1().ResourceQuotas("n").Get(ctx, "q", metav1.GetOptions{})
		return err == nil && hard(rq) == limits
	}, time.Minute, 5*time.Millisecond)
}

// run calls Run with a decorated client that impersonates, and returns what ends it.
func (c *cluster) run(q *Quotas) func() {
	c.Helper()
	decorated := q.Decorate(c.quotas)
	client, err := decorated.WithImpersonation(rest.ImpersonationConfig{})
	require.NoError(c, err)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- q.Run(running, decorated, client) }()
	return func() {
		stop()
		require.NoError(c, <-ended)
	}
}

// The applier writes with the client that it is given, past the lock, and what it raises is
// not taken for static.
func TestRunWritesPastTheLock(t *testing.T) {
	c := newCluster(t)
	q, err := NewQuotas(c.client, nil)
	require.NoError(t, err)
	stop := c.run(q)
	c.record("1")
	c.becomes(five)
	c.record()
	c.becomes(four)
	stop()
}

// A Run that has ended leaves no cache behind that nobody keeps up, and another one goes on
// from there. Rancher starts what it defers again if the cluster was out of reach.
func TestRunAgain(t *testing.T) {
	c := newCluster(t)
	q, err := NewQuotas(c.client, nil)
	require.NoError(t, err)
	stop := c.run(q)
	c.record("1")
	c.becomes(five)
	stop()

	c.record("1", "2")
	known, err := q.record.Migrations(ctx, "n")
	require.NoError(t, err)
	require.Len(t, known, 2)

	stop = c.run(q)
	c.becomes(seven)
	c.record()
	c.becomes(four)
	stop()
}

// A write that is refused is for an administrator: it is no error that the loop would try
// again at once.
func TestARefusalWaits(t *testing.T) {
	c := newCluster(t)
	require.True(t, cache.WaitForCacheSync(t.Context().Done(), c.quotas.informer.HasSynced))
	c.record("1")
	q, err := NewQuotas(c.client, nil)
	require.NoError(t, err)
	look, err := q.look(c.quotas, c.quotas)
	require.NoError(t, err)
	again, err := look(ctx, "n")
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, again)
}
