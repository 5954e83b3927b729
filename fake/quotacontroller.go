package fake

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

const quotaControllerUser = "resourcequota-controller"

// quotaResync is how often kube-controller-manager counts all usage anew.
const quotaResync = 5 * time.Minute

// A quotaController recounts a quota when its spec.hard has changed, when an object that it counts has ended or
// was resized, and every five minutes (pkg/controller/resourcequota of Kubernetes, v1.36). One update of the
// status then makes status.hard spec.hard, whoever wrote it, and status.used what is there. A new object does
// not wake it: admission has charged that already. Nor does an update of the status.
type quotaController struct {
	*Cluster
	queue *queue
	down  bool
}

func newQuotaController(c *Cluster) *quotaController {
	q := &quotaController{Cluster: c}
	q.queue = newQueue(&c.clock, q.sync)
	return q
}

func (q *quotaController) observe(c change) {
	before, after := c.before, c.after
	switch o := c.object().(type) {
	case *corev1.ResourceQuota:
		if old, ok := before.(*corev1.ResourceQuota); after != nil && (!ok || !quota.Equal(old.Spec.Hard, o.Spec.Hard)) {
			q.wake(o)
		}
		// Asked for only after changes, so that a cluster at rest has nothing to do.
		q.queue.add(key(o), quotaResync)
	case *corev1.Pod:
		old, ok := before.(*corev1.Pod)
		if ok && (after == nil || ended(o) && !ended(old) || !quota.Equal(quota.Footprint(old), quota.Footprint(o))) {
			q.replenish(o)
		}
	case *corev1.PersistentVolumeClaim, *resourcev1.ResourceClaim:
		if after == nil {
			q.replenish(c.before)
		}
	}
}

// replenish wakes the quotas that limit what o was charged for.
func (q *quotaController) replenish(o object) {
	for _, rq := range all[*corev1.ResourceQuota](&q.store, o.GetNamespace()) {
		if len(loadOf(o, q.clock.now).limitedBy(rq.Status.Hard)) > 0 {
			q.wake(rq)
		}
	}
}

func (q *quotaController) wake(rq *corev1.ResourceQuota) {
	q.queue.add(key(rq), q.draw(q.config.Timing.Quota))
}

// StopQuotaController takes the quota controller down, as when kube-controller-manager is: new spec.hard does
// not reach status.hard, and usage does not fall.
func (c *Cluster) StopQuotaController() {
	c.note("the quota controller stops")
	c.quotas.down = true
}

// StartQuotaController brings the quota controller back, which recounts all quotas. It does nothing if the
// controller is not down.
func (c *Cluster) StartQuotaController() {
	if !c.quotas.down {
		return
	}
	c.note("the quota controller starts")
	c.quotas.down = false
	for _, rq := range all[*corev1.ResourceQuota](&c.store, "") {
		c.quotas.wake(rq)
	}
}

// sync makes the status of one quota true.
func (q *quotaController) sync(name string) (time.Duration, error) {
	rq, ok := findKey[*corev1.ResourceQuota](&q.store, name)
	if !ok || q.down {
		return 0, nil
	}
	used := q.usage(rq)
	if rq.Status.Hard != nil && quota.Equal(rq.Status.Hard, rq.Spec.Hard) && quota.Equal(rq.Status.Used, used) {
		return 0, nil
	}
	write(q.Cluster, quotaControllerUser, rq, func(rq *corev1.ResourceQuota) {
		rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard.DeepCopy(), Used: used}
	})
	return 0, nil
}

// usage counts what rq limits. Of other objects than pods and claims of both kinds there are none.
func (q *quotaController) usage(rq *corev1.ResourceQuota) corev1.ResourceList {
	used := corev1.ResourceList{}
	for name := range rq.Spec.Hard {
		used[name] = resource.Quantity{Format: resource.DecimalSI}
	}
	var counted []object
	for _, kind := range []Kind{Pods, Claims, ResourceClaims} {
		counted = append(counted, q.store.list(kind, rq.Namespace)...)
	}
	for _, o := range counted {
		load := loadOf(o, q.clock.now)
		for name, q := range load.charge {
			if sum, ok := used[name]; ok && load.traits.SelectedBy(rq) {
				used[name] = amounts.Plus(sum, q)
			}
		}
	}
	return used
}
