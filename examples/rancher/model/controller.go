// Package model is Rancher's quota controller as far as a namespace and its ResourceQuota are concerned
// (SyncController of its pkg/controllers/managementuser/resourcequota). It is written anew from what Rancher
// does, for tests that cannot have Rancher itself as a dependency. The tests in ../proof run it on wrangler's
// real controllers and caches, and [Simulate] on a simulated cluster.
//
// What it does as Rancher does: it gets the quota by its label from the cache, compares the limits by their
// value, updates the cached copy with its spec replaced, writes the limits and a condition with a timestamp to
// the namespace before that, so that each write of a quota is another event for it, creates zeros for what does
// not fit the project, leaves a quota alone whose new limits do not fit, retries after conflicts, and
// reconciles all namespaces after a start. It does not watch quotas.
//
// What it leaves out: limit ranges, roles, used limits, and where projects are stored. And it creates no second
// quota when its cache is slow, as Rancher may.
package model

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/rancher"
)

// A Controller makes the ResourceQuota of each namespace what its project and its annotation want.
type Controller struct {
	Namespaces typedcorev1.NamespacesGetter
	// Quotas writes as another account since the write lock.
	Quotas         typedcorev1.ResourceQuotasGetter
	NamespaceCache cache.Indexer
	QuotaCache     cache.Indexer
	Projects       *Projects
	Now            func() time.Time

	validation sync.Mutex
}

// Of returns the namespaces of a project.
func (c *Controller) Of(project string) ([]*corev1.Namespace, error) {
	namespaces, err := corev1listers.NewNamespaceLister(c.NamespaceCache).List(labels.Everything())
	return slices.DeleteFunc(namespaces, func(ns *corev1.Namespace) bool {
		return ns.Annotations[ProjectAnnotation] != project
	}), err
}

// Sync reconciles a namespace.
func (c *Controller) Sync(ctx context.Context, name string) error {
	ns, err := corev1listers.NewNamespaceLister(c.NamespaceCache).Get(name)
	if apierrors.IsNotFound(err) || err == nil && ns.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	existing, err := c.existing(name)
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
	case len(wanted) == 0:
		if ns, err = c.annotate(ctx, ns, rancher.LimitsAnnotation, ""); err == nil {
			err = c.Quotas.ResourceQuotas(name).Delete(ctx, existing.Name, metav1.DeleteOptions{})
		}
	case existing == nil || !equality.Semantic.DeepEqual(existing.Spec.Hard, wanted):
		ns, err = c.put(ctx, ns, existing, limit, wanted)
	}
	if err != nil || isSet(ns, initialized) {
		return err
	}
	_, err = c.set(ctx, ns, initialized, true)
	return err
}

var managed = labels.Set{rancher.QuotaLabel: "true"}

func (c *Controller) existing(namespace string) (*corev1.ResourceQuota, error) {
	quotas, err := corev1listers.NewResourceQuotaLister(c.QuotaCache).ResourceQuotas(namespace).List(managed.AsSelector())
	if err != nil || len(quotas) == 0 {
		return nil, err
	}
	return slices.MinFunc(quotas, func(a, b *corev1.ResourceQuota) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// put creates the quota, or updates it if what is wanted fits the project.
func (c *Controller) put(ctx context.Context, ns *corev1.Namespace, existing *corev1.ResourceQuota, limit Limit, wanted corev1.ResourceList) (*corev1.Namespace, error) {
	ns, excess, err := c.declare(ctx, ns, limit, wanted)
	if err != nil || existing != nil && len(excess) > 0 {
		return ns, err
	}
	quotas := c.Quotas.ResourceQuotas(ns.Name)
	if existing != nil {
		existing = existing.DeepCopy()
		existing.Spec = corev1.ResourceQuotaSpec{Hard: wanted}
		_, err = quotas.Update(ctx, existing, metav1.UpdateOptions{})
		return ns, err
	}
	for name := range excess {
		wanted[name] = resource.Quantity{Format: resource.DecimalSI}
	}
	// The cache may not have what the last event of the namespace has created.
	if live, err := quotas.List(ctx, metav1.ListOptions{LabelSelector: managed.String()}); err != nil || len(live.Items) > 0 {
		return ns, err
	}
	_, err = quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "default-", Namespace: ns.Name, Labels: managed},
		Spec:       corev1.ResourceQuotaSpec{Hard: wanted},
	}, metav1.CreateOptions{})
	return ns, err
}

// annotate writes an annotation of ns, unless it is so already. The empty value is none.
func (c *Controller) annotate(ctx context.Context, ns *corev1.Namespace, name, value string) (*corev1.Namespace, error) {
	if ns.Annotations[name] == value {
		return ns, nil
	}
	ns = ns.DeepCopy()
	metav1.SetMetaDataAnnotation(&ns.ObjectMeta, name, value)
	if value == "" {
		delete(ns.Annotations, name)
	}
	return c.Namespaces.Namespaces().Update(ctx, ns, metav1.UpdateOptions{})
}

// declare writes to the namespace what it is to have, and whether that fits the project. It returns what does
// not.
func (c *Controller) declare(ctx context.Context, ns *corev1.Namespace, limit Limit, wanted corev1.ResourceList) (*corev1.Namespace, corev1.ResourceList, error) {
	text, err := Annotation(limit)
	if err != nil {
		return ns, nil, err
	}
	if ns, err = c.annotate(ctx, ns, rancher.LimitsAnnotation, text); err != nil {
		return ns, nil, err
	}
	c.validation.Lock()
	defer c.validation.Unlock()
	excess, err := c.excess(ns, wanted)
	if err != nil {
		return ns, nil, err
	}
	ns, err = c.set(ctx, ns, validated, len(excess) == 0)
	return ns, excess, err
}

// excess returns of what the validated namespaces of the project, and ns with wanted, have more than the
// project.
func (c *Controller) excess(ns *corev1.Namespace, wanted corev1.ResourceList) (corev1.ResourceList, error) {
	others, err := c.Of(ns.Annotations[ProjectAnnotation])
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
