package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// RancherUser is who Rancher writes quotas as; see Config.Lock.
const RancherUser = "system:serviceaccount:cattle-system:rancher-webhook-sudo"

// statusAnnotation is where Rancher writes conditions to a Namespace.
const statusAnnotation = "cattle.io/status"

// A RancherConfig says what Rancher does; the zero value is one that is very near, without
// project limits.
type RancherConfig struct {
	// Latency is how far away Rancher is: how long each event takes to it, and each of
	// its calls. At 5 to 20 ms Rancher and another writer of spec.hard come to terms
	// after a reset or two; at 600 ms they chase each other.
	Latency Span
	// Project is what all namespaces may be given together; an absent key is no limit.
	Project corev1.ResourceList
}

// A Rancher writes the quotas that it manages anew whenever something happens to their
// namespace (SyncController of its pkg/controllers/managementuser/resourcequota). It does
// not look at the quotas themselves.
type Rancher struct {
	cluster *Cluster
	config  RancherConfig
	queue   *queue
	rounds  map[string]*round // by namespace
	cached  map[string]*corev1.ResourceQuota
	last    time.Time // when the latest change of a quota reaches the cache
}

// A round is Rancher's work on one namespace, which takes several calls.
type round struct {
	busy, again bool
	failures    int
}

// StartRancher adds a Rancher to the cluster, before there are quotas.
func (c *Cluster) StartRancher(config RancherConfig) *Rancher {
	r := &Rancher{cluster: c, config: config, rounds: map[string]*round{}, cached: map[string]*corev1.ResourceQuota{}}
	r.queue = newQueue(&c.clock, r.sync)
	c.rancher = r
	return r
}

// quotas returns what Rancher's cache holds of the quotas that it manages in namespace.
func (r *Rancher) quotas(namespace string) []*corev1.ResourceQuota {
	var quotas []*corev1.ResourceQuota
	for _, name := range slices.Sorted(maps.Keys(r.cached)) {
		if rq := r.cached[name]; rq.Namespace == namespace && isManaged(rq) {
			quotas = append(quotas, rq)
		}
	}
	return quotas
}

func (c *Cluster) informRancher(happened change) {
	if c.rancher == nil {
		return
	}
	switch o := happened.object().(type) {
	case *corev1.Namespace:
		if happened.after != nil {
			c.rancher.wake(o.Name)
		}
	case *corev1.ResourceQuota:
		c.rancher.learn(o, happened.after == nil)
	}
}

// learn brings a change of a quota to the cache, in order.
func (r *Rancher) learn(rq *corev1.ResourceQuota, gone bool) {
	arrives := r.cluster.clock.now.Add(r.latency())
	if arrives.Before(r.last) {
		arrives = r.last
	}
	r.last = arrives
	r.cluster.clock.after(arrives.Sub(r.cluster.clock.now), func() {
		r.cached[key(rq)] = rq
		if gone {
			delete(r.cached, key(rq))
		}
	})
}

func (r *Rancher) latency() time.Duration { return r.cluster.draw(r.config.Latency) }

func (r *Rancher) wake(namespace string) { r.queue.add(namespace, r.latency()) }

// SetLimit gives a namespace, which must exist, its limits, in the names of a
// ResourceQuota. Nil takes the quota away.
func (r *Rancher) SetLimit(namespace string, hard corev1.ResourceList) error {
	ctx, client := context.Background(), r.cluster.Client(RancherUser).CoreV1().Namespaces()
	ns, err := client.Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return err
	}
	delete(ns.Annotations, rancher.LimitsAnnotation)
	if hard != nil {
		metav1.SetMetaDataAnnotation(&ns.ObjectMeta, rancher.LimitsAnnotation, rancher.Annotation(hard))
	}
	_, err = client.Update(ctx, ns, metav1.UpdateOptions{})
	return err
}

// Touch is any event of the namespace.
func (r *Rancher) Touch(namespace string) { r.wake(namespace) }

// Restart drops the tunnel of the agent: all namespaces are listed anew, and looked at.
func (r *Rancher) Restart() {
	r.cluster.note("Rancher's agent starts")
	for _, ns := range all[*corev1.Namespace](&r.cluster.store, "") {
		r.wake(ns.Name)
	}
}

// sync begins a round, unless one is going on.
func (r *Rancher) sync(namespace string) (time.Duration, error) {
	current := r.rounds[namespace]
	if current == nil {
		current = &round{}
		r.rounds[namespace] = current
	}
	if current.busy {
		current.again = true
		return 0, nil
	}
	current.busy = true
	r.begin(namespace)
	return 0, nil
}

// end ends a round.
func (r *Rancher) end(namespace string, err error) {
	current := r.rounds[namespace]
	current.busy = false
	if err != nil {
		r.queue.add(namespace, backoff(current.failures))
		current.failures++
	} else {
		current.failures = 0
	}
	if current.again {
		current.again = false
		r.queue.add(namespace, 0)
	}
}

// begin finds out what to do, in the cache.
func (r *Rancher) begin(namespace string) {
	ns, ok := find[*corev1.Namespace](&r.cluster.store, "", namespace)
	if !ok {
		r.end(namespace, nil)
		return
	}
	wanted, err := rancher.Limits(ns)
	if err != nil {
		r.end(namespace, err)
		return
	}
	quotas := r.quotas(namespace)
	switch {
	case len(quotas) == 0 && len(wanted) == 0:
		r.end(namespace, nil)
	case len(quotas) == 0:
		r.afterStatus(ns, func([]corev1.ResourceName) error { return r.createQuota(namespace, wanted) })
	case len(wanted) == 0:
		r.end(namespace, r.cluster.remove(RancherUser, ResourceQuotas, namespace, quotas[0].Name, metav1.DeleteOptions{}))
	case quota.Equal(quotas[0].Spec.Hard, wanted):
		r.end(namespace, nil)
	default:
		r.afterStatus(ns, func(excess []corev1.ResourceName) error {
			if len(excess) > 0 {
				return nil // the quota keeps what it has
			}
			return r.updateQuota(quotas[0], wanted)
		})
	}
}

// afterStatus writes the annotation and the conditions of the namespace, each of which
// is a call, and then the quota. The conditions have a timestamp: they are another event
// of the namespace.
func (r *Rancher) afterStatus(ns *corev1.Namespace, then func(excess []corev1.ResourceName) error) {
	excess := r.excess()
	r.cluster.clock.after(r.latency()+r.latency(), func() {
		r.writeStatus(ns, len(excess) == 0)
		r.cluster.clock.after(r.latency(), func() { r.end(ns.Name, then(excess)) })
	})
}

// updateQuota writes the cached copy back with other limits. Its annotations, also those
// that came with a status, go back with it, or conflict.
func (r *Rancher) updateQuota(cached *corev1.ResourceQuota, wanted corev1.ResourceList) error {
	updated := cached.DeepCopy()
	updated.Spec = corev1.ResourceQuotaSpec{Hard: wanted}
	_, err := r.cluster.update(RancherUser, updated, false)
	return err
}

// createQuota creates a quota. What does not fit the project becomes zero. The real
// Rancher may create a second one when its cache is slow; a test that wants two creates
// one itself.
func (r *Rancher) createQuota(namespace string, wanted corev1.ResourceList) error {
	for _, rq := range all[*corev1.ResourceQuota](&r.cluster.store, namespace) {
		if isManaged(rq) {
			return nil
		}
	}
	for _, name := range r.excess() {
		if has(wanted, name) {
			wanted[name] = resource.Quantity{Format: resource.DecimalSI}
		}
	}
	_, err := r.cluster.create(RancherUser, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "default-", Labels: map[string]string{RancherLabel: "true"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: wanted},
	})
	return err
}

// excess returns the limits that the annotations of all namespaces exceed the project in.
func (r *Rancher) excess() []corev1.ResourceName {
	sum := corev1.ResourceList{}
	for _, ns := range all[*corev1.Namespace](&r.cluster.store, "") {
		limit, err := rancher.Limits(ns)
		if err != nil {
			continue
		}
		for name, q := range limit {
			sum[name] = amounts.Plus(sum[name], q)
		}
	}
	return slices.DeleteFunc(amounts.Names(r.config.Project), func(name corev1.ResourceName) bool {
		total := sum[name]
		return total.Cmp(r.config.Project[name]) <= 0
	})
}

func (r *Rancher) writeStatus(ns *corev1.Namespace, valid bool) {
	status := "True"
	if !valid {
		status = "False"
	}
	text := fmt.Sprintf(`{"Conditions":[{"Type":"ResourceQuotaValidated","Status":%q,"LastUpdateTime":%q}]}`,
		status, r.cluster.stamp().UTC().Format(time.RFC3339))
	write(r.cluster, RancherUser, ns, func(ns *corev1.Namespace) {
		metav1.SetMetaDataAnnotation(&ns.ObjectMeta, statusAnnotation, text)
	})
}
