package model

import (
	"context"
	"sync/atomic"
	"time"

	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/vmquota/headroom/ledger/rancher"
)

// A Controller makes the ResourceQuota of each namespace what its project and its
// annotation want.
type Controller struct {
	Namespaces wranglercorev1.NamespaceController
	Quotas     wranglercorev1.ResourceQuotaClient
	QuotaCache wranglercorev1.ResourceQuotaCache
	Projects   *Projects
	Latency    time.Duration // until an event arrives

	synced atomic.Int64
}

// Register makes the controller work on every event of a namespace and of a project.
func (c *Controller) Register(ctx context.Context) {
	c.Namespaces.OnChange(ctx, "resourceQuotaSyncController", func(_ string, ns *corev1.Namespace) (*corev1.Namespace, error) {
		err := c.sync(ns)
		if err == nil {
			c.synced.Add(1)
		}
		return nil, err
	})
	c.Projects.onChange(func(id string) {
		if ctx.Err() != nil {
			return
		}
		namespaces, err := c.of(id)
		if err != nil {
			return
		}
		for _, ns := range namespaces {
			c.Namespaces.Enqueue(ns.Name)
		}
	})
}

// of returns the namespaces of a project.
func (c *Controller) of(project string) ([]*corev1.Namespace, error) {
	all, err := c.Namespaces.Cache().List(labels.Everything())
	var namespaces []*corev1.Namespace
	for _, ns := range all {
		if ns.Annotations[ProjectAnnotation] == project {
			namespaces = append(namespaces, ns)
		}
	}
	return namespaces, err
}

func (c *Controller) sync(ns *corev1.Namespace) error {
	if ns == nil || ns.DeletionTimestamp != nil {
		return nil
	}
	time.Sleep(c.Latency)
	existing, err := c.existing(ns)
	if err != nil {
		return err
	}
	asked, err := askedIn(ns)
	if err != nil {
		return err
	}
	limit := c.Projects.of(ns).merged(asked)
	wanted, err := amounts(limit)
	if err != nil {
		return err
	}
	switch {
	case existing == nil && len(wanted) == 0:
	case existing == nil:
		ns, err = c.create(ns, limit, wanted)
	case len(wanted) == 0:
		ns, err = c.remove(ns, existing)
	case !equality.Semantic.DeepEqual(existing.Spec.Hard, wanted):
		ns, err = c.update(ns, existing, limit, wanted)
	}
	if err != nil || isSet(ns, initialized) {
		return err
	}
	ns, err = set(ns, initialized, true)
	if err != nil {
		return err
	}
	_, err = c.Namespaces.Update(ns)
	return err
}

func (c *Controller) existing(ns *corev1.Namespace) (*corev1.ResourceQuota, error) {
	quotas, err := c.QuotaCache.List(ns.Name, labels.SelectorFromSet(labels.Set{rancher.QuotaLabel: "true"}))
	if err != nil || len(quotas) == 0 {
		return nil, err
	}
	return quotas[0], nil
}

func (c *Controller) create(ns *corev1.Namespace, limit Limit, wanted corev1.ResourceList) (*corev1.Namespace, error) {
	ns, excess, err := c.declare(ns, limit, wanted)
	if err != nil {
		return ns, err
	}
	for name := range excess {
		wanted[name] = resource.Quantity{Format: resource.DecimalSI}
	}
	created, err := c.Quotas.Create(&corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "default-", Namespace: ns.Name, Labels: map[string]string{rancher.QuotaLabel: "true"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: wanted},
	})
	if err != nil {
		return ns, err
	}
	// The events of what was just written to the namespace are next.
	const patience, pause = 10 * time.Second, 5 * time.Millisecond
	for waited := time.Duration(0); waited < patience; waited += pause {
		if _, err := c.QuotaCache.Get(created.Namespace, created.Name); err == nil {
			break
		}
		time.Sleep(pause)
	}
	return ns, nil
}

func (c *Controller) update(ns *corev1.Namespace, existing *corev1.ResourceQuota, limit Limit, wanted corev1.ResourceList) (*corev1.Namespace, error) {
	ns, excess, err := c.declare(ns, limit, wanted)
	if err != nil || len(excess) > 0 {
		return ns, err
	}
	existing = existing.DeepCopy()
	existing.Spec = corev1.ResourceQuotaSpec{Hard: wanted}
	_, err = c.Quotas.Update(existing)
	return ns, err
}

func (c *Controller) remove(ns *corev1.Namespace, existing *corev1.ResourceQuota) (*corev1.Namespace, error) {
	if _, has := ns.Annotations[rancher.LimitsAnnotation]; has {
		next := ns.DeepCopy()
		delete(next.Annotations, rancher.LimitsAnnotation)
		var err error
		if ns, err = c.Namespaces.Update(next); err != nil {
			return ns, err
		}
	}
	return ns, c.Quotas.Delete(existing.Namespace, existing.Name, &metav1.DeleteOptions{})
}

// declare writes to the namespace what it is to have, and whether that fits the project. It
// returns what does not.
func (c *Controller) declare(ns *corev1.Namespace, limit Limit, wanted corev1.ResourceList) (*corev1.Namespace, corev1.ResourceList, error) {
	text, err := Annotation(limit)
	if err != nil {
		return ns, nil, err
	}
	if ns.Annotations[rancher.LimitsAnnotation] != text {
		next := ns.DeepCopy()
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, rancher.LimitsAnnotation, text)
		if ns, err = c.Namespaces.Update(next); err != nil {
			return ns, nil, err
		}
	}
	c.Projects.validate.Lock()
	defer c.Projects.validate.Unlock()
	excess, err := c.excess(ns, wanted)
	if err != nil {
		return ns, nil, err
	}
	next, err := set(ns, validated, len(excess) == 0)
	if err != nil {
		return ns, nil, err
	}
	ns, err = c.Namespaces.Update(next)
	return ns, excess, err
}

// excess returns of what the validated namespaces of the project, and ns with wanted,
// have more than the project.
func (c *Controller) excess(ns *corev1.Namespace, wanted corev1.ResourceList) (corev1.ResourceList, error) {
	others, err := c.of(ns.Annotations[ProjectAnnotation])
	if err != nil {
		return nil, err
	}
	sum := wanted.DeepCopy()
	for _, other := range others {
		if other.Name == ns.Name || !isSet(other, validated) {
			continue
		}
		limits, err := rancher.Limits(other)
		if err != nil {
			return nil, err
		}
		for name, q := range limits {
			total := sum[name]
			total.Add(q)
			sum[name] = total
		}
	}
	most, err := amounts(c.Projects.of(ns).Limit)
	excess := corev1.ResourceList{}
	for name, q := range most {
		if total, has := sum[name]; has && total.Cmp(q) > 0 {
			excess[name] = total
		}
	}
	return excess, err
}
