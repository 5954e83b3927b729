package fake

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
)

const quotaControllerUser = "resourcequota-controller"

// quotaResync is how often kube-controller-manager counts all usage anew.
const quotaResync = 5 * time.Minute

// A quotaController recounts a quota when its spec.hard has changed, when an object that
// it counts has ended or was resized, and every five minutes (pkg/controller/resourcequota of
// Kubernetes, v1.36). One update of the status then makes status.hard spec.hard, whoever
// wrote it, and status.used what is there. A new object does not wake it: admission has
// charged that already. Nor does an update of the status.
type quotaController struct {
	*Cluster
	queue *queue
	down  bool
	// resyncs are the quotas that the next resync will look at. It is asked for only
	// after changes, so that a cluster at rest has nothing to do.
	resyncs map[string]bool
}

func newQuotaController(c *Cluster) *quotaController {
	q := &quotaController{Cluster: c, resyncs: map[string]bool{}}
	q.queue = newQueue(&c.clock, q.sync)
	return q
}

// observe is told of every change.
func (q *quotaController) observe(c change) {
	switch c.kind {
	case ResourceQuotas:
		after, ok := c.after.(*corev1.ResourceQuota)
		if !ok {
			return
		}
		before, existed := c.before.(*corev1.ResourceQuota)
		if !existed || !quota.Equal(before.Spec.Hard, after.Spec.Hard) {
			q.wake(after)
		}
		q.resync(after)
	case Pods:
		before, existed := c.before.(*corev1.Pod)
		after, exists := c.after.(*corev1.Pod)
		if existed && (!exists || ended(after) && !ended(before) || !quota.Equal(quota.Footprint(before), quota.Footprint(after))) {
			q.replenish(before, isPodResource)
		}
	case Claims:
		if c.after == nil {
			q.replenish(c.before, isClaimResource)
		}
	case ResourceClaims:
		if c.after == nil {
			q.replenish(c.before, isDeviceResource)
		}
	default:
	}
}

// replenish wakes the quotas that limit what o was charged for.
func (q *quotaController) replenish(o object, counts func(corev1.ResourceName) bool) {
	for _, rq := range all[*corev1.ResourceQuota](&q.store, o.GetNamespace()) {
		for name := range rq.Status.Hard {
			if counts(name) {
				q.wake(rq)
				break
			}
		}
	}
}

func (q *quotaController) wake(rq *corev1.ResourceQuota) {
	q.queue.add(key(rq), q.draw(q.config.Timing.Quota))
}

func (q *quotaController) resync(rq *corev1.ResourceQuota) {
	name := key(rq)
	if q.resyncs[name] {
		return
	}
	q.resyncs[name] = true
	q.clock.after(quotaResync, func() {
		delete(q.resyncs, name)
		q.queue.add(name, 0)
	})
}

// StopQuotaController takes the quota controller down, as when kube-controller-manager
// is: new spec.hard does not reach status.hard, and usage does not fall.
func (c *Cluster) StopQuotaController() {
	c.note("the quota controller stops")
	c.quotas.down = true
}

// StartQuotaController brings the quota controller back, which recounts all quotas. It
// does nothing if the controller is not down.
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
	count := func(o object) {
		load := loadOf(o, q.clock.now)
		if !load.traits.SelectedBy(rq) {
			return
		}
		for name, q := range load.charge {
			if sum, ok := used[name]; ok {
				sum.Add(q)
				used[name] = sum
			}
		}
	}
	for _, pod := range all[*corev1.Pod](&q.store, rq.Namespace) {
		count(pod)
	}
	for _, claim := range all[*corev1.PersistentVolumeClaim](&q.store, rq.Namespace) {
		count(claim)
	}
	for _, claim := range all[*resourcev1.ResourceClaim](&q.store, rq.Namespace) {
		count(claim)
	}
	return used
}
