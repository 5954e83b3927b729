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
	"encoding/json"
	"maps"
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

const (
	statusAnnotation = "cattle.io/status"
	validated        = "ResourceQuotaValidated"
	initialized      = "ResourceQuotaInit"
)

type status struct{ Conditions []condition }

type condition struct{ Type, Status, Message, LastUpdateTime string }

func conditionsOf(ns *corev1.Namespace) (s status) {
	if err := json.Unmarshal([]byte(ns.Annotations[statusAnnotation]), &s); err != nil {
		return status{}
	}
	return s
}

func isSet(ns *corev1.Namespace, name string) bool {
	return slices.ContainsFunc(conditionsOf(ns).Conditions, func(c condition) bool { return c.Type == name && c.Status == "True" })
}

// set writes a condition that is as old as now.
func (c *Controller) set(ctx context.Context, ns *corev1.Namespace, name string, value bool) (*corev1.Namespace, error) {
	next := condition{Type: name, Status: "False", LastUpdateTime: c.Now().UTC().Add(time.Second).Format(time.RFC3339)}
	if value {
		next.Status = "True"
	}
	s := conditionsOf(ns)
	if i := slices.IndexFunc(s.Conditions, func(c condition) bool { return c.Type == name }); i >= 0 {
		s.Conditions[i] = next
	} else {
		s.Conditions = append(s.Conditions, next)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return ns, err
	}
	return c.annotate(ctx, ns, statusAnnotation, string(text))
}

// ProjectAnnotation is on a Namespace, and holds the ID of its project.
const ProjectAnnotation = "field.cattle.io/projectId"

// A Limit is limits as Rancher writes them: amounts by field, and a map "extended".
type Limit map[string]any

// A Project is what its namespaces may have. Limit is what they may have together, and Default what a namespace
// has that asks for nothing, and which keys it may ask for. A project with no Limit gives no quotas.
type Project struct{ Limit, Default Limit }

// Projects are those of a cluster, by ID. They are where an agent's restart does not lose them. The zero value
// has none.
type Projects struct {
	mu      sync.Mutex
	byID    map[string]Project
	changed []func(id string)
}

// Set makes p the project of that ID, and calls the handlers.
func (p *Projects) Set(id string, project Project) {
	p.mu.Lock()
	if p.byID == nil {
		p.byID = map[string]Project{}
	}
	p.byID[id] = project
	changed := p.changed
	p.mu.Unlock()
	for _, handle := range changed {
		handle(id)
	}
}

func (p *Projects) of(ns *corev1.Namespace) Project {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[ns.Annotations[ProjectAnnotation]]
}

// OnChange calls handle with the ID of each project that is set.
func (p *Projects) OnChange(handle func(id string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = append(p.changed, handle)
}

// merged returns what is wanted for a namespace that asks for asked, nil if nothing is.
func (p Project) merged(asked Limit) Limit {
	if p.Limit == nil || p.Default == nil {
		return nil
	}
	wanted := maps.Clone(p.Default)
	for field := range wanted {
		if other, asks := asked[field]; asks {
			wanted[field] = other
		}
	}
	return wanted
}

// askedIn returns what the annotation of ns asks for, nil if there is none.
func askedIn(ns *corev1.Namespace) (Limit, error) {
	text := ns.Annotations[rancher.LimitsAnnotation]
	if text == "" {
		return nil, nil
	}
	return limitIn(text)
}

func limitIn(annotation string) (Limit, error) {
	var asked struct{ Limit Limit }
	err := json.Unmarshal([]byte(annotation), &asked)
	return asked.Limit, err
}

// Annotation returns the value of rancher.LimitsAnnotation that asks for limit.
func Annotation(limit Limit) (string, error) {
	text, err := json.Marshal(map[string]Limit{"limit": limit})
	return string(text), err
}

// amounts returns limit in ResourceQuota names.
func amounts(limit Limit) (corev1.ResourceList, error) {
	if limit == nil {
		return nil, nil
	}
	text, err := Annotation(limit)
	if err != nil {
		return nil, err
	}
	return rancher.Limits(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{rancher.LimitsAnnotation: text},
	}})
}
