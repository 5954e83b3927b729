package rancher

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Client returns a client of ResourceQuotas that reads as [Shim.Shown] says and writes as
// [Shim.Stored] says. An answer to a write is shown too. Errors of the API server are
// passed on: a conflict is one with the resourceVersion that the caller had.
//
// UpdateStatus, Delete and DeleteCollection are those of client. See [Shim.Patch] for
// Patch. Apply is refused with ErrUntranslatable, because it takes away limits by not
// naming them; ApplyStatus is, if it names an annotation of a raise.
func (s *Shim) Client(client typedcorev1.ResourceQuotasGetter) typedcorev1.ResourceQuotasGetter {
	return &clients{shim: s, inner: client}
}

type clients struct {
	shim  *Shim
	inner typedcorev1.ResourceQuotasGetter
}

func (c *clients) ResourceQuotas(namespace string) typedcorev1.ResourceQuotaInterface {
	return &client{ResourceQuotaInterface: c.inner.ResourceQuotas(namespace), shim: c.shim, namespace: namespace}
}

// A client is that of one namespace. What it does not have is that of the inner one.
type client struct {
	typedcorev1.ResourceQuotaInterface
	shim      *Shim
	namespace string
}

func (c *client) Create(ctx context.Context, rq *corev1.ResourceQuota, opts metav1.CreateOptions) (*corev1.ResourceQuota, error) {
	stored, err := c.stored(ctx, rq)
	if err != nil {
		return nil, err
	}
	answer, err := c.ResourceQuotaInterface.Create(ctx, stored, opts)
	return c.shim.Shown(answer), err
}

func (c *client) Update(ctx context.Context, rq *corev1.ResourceQuota, opts metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	stored, err := c.stored(ctx, rq)
	if err != nil {
		return nil, err
	}
	answer, err := c.ResourceQuotaInterface.Update(ctx, stored, opts)
	return c.shim.Shown(answer), err
}

// stored is Shim.Stored for an object that leaves its namespace to the client.
func (c *client) stored(ctx context.Context, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	if rq != nil && rq.Namespace == "" {
		rq = rq.DeepCopy()
		rq.Namespace = c.namespace
	}
	return c.shim.Stored(ctx, rq)
}

func (c *client) UpdateStatus(ctx context.Context, rq *corev1.ResourceQuota, opts metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	answer, err := c.ResourceQuotaInterface.UpdateStatus(ctx, rq, opts)
	return c.shim.Shown(answer), err
}

func (c *client) Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.ResourceQuota, error) {
	rq, err := c.ResourceQuotaInterface.Get(ctx, name, opts)
	return c.shim.Shown(rq), err
}

func (c *client) List(ctx context.Context, opts metav1.ListOptions) (*corev1.ResourceQuotaList, error) {
	list, err := c.ResourceQuotaInterface.List(ctx, opts)
	return c.shim.ShownList(list), err
}

func (c *client) Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := c.ResourceQuotaInterface.Watch(ctx, opts)
	if err != nil {
		return nil, err
	}
	return c.shim.Watch(w), nil
}

func (c *client) Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.ResourceQuota, error) {
	patch := Patch{Namespace: c.namespace, Name: name, Type: pt, Data: data, Subresources: subresources}
	return c.shim.Patch(ctx, patch, Verbs{
		Get: func() (*corev1.ResourceQuota, error) {
			return c.ResourceQuotaInterface.Get(ctx, name, metav1.GetOptions{})
		},
		Update: func(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
			return c.ResourceQuotaInterface.Update(ctx, rq, metav1.UpdateOptions{
				DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation,
			})
		},
		Patch: func() (*corev1.ResourceQuota, error) {
			return c.ResourceQuotaInterface.Patch(ctx, name, pt, data, opts, subresources...)
		},
	})
}

func (c *client) Apply(ctx context.Context, rq *applycorev1.ResourceQuotaApplyConfiguration, opts metav1.ApplyOptions) (*corev1.ResourceQuota, error) {
	if !c.shim.Disabled() {
		return nil, c.untranslatable(rq)
	}
	return c.ResourceQuotaInterface.Apply(ctx, rq, opts)
}

func (c *client) ApplyStatus(ctx context.Context, rq *applycorev1.ResourceQuotaApplyConfiguration, opts metav1.ApplyOptions) (*corev1.ResourceQuota, error) {
	if rq != nil && rq.ObjectMetaApplyConfiguration != nil && !c.shim.Disabled() {
		for _, name := range ours {
			if _, names := rq.Annotations[name]; names {
				return nil, c.untranslatable(rq)
			}
		}
	}
	answer, err := c.ResourceQuotaInterface.ApplyStatus(ctx, rq, opts)
	return c.shim.Shown(answer), err
}

func (c *client) untranslatable(rq *applycorev1.ResourceQuotaApplyConfiguration) error {
	name := ""
	if rq != nil && rq.ObjectMetaApplyConfiguration != nil && rq.Name != nil {
		name = *rq.Name
	}
	return &Error{Namespace: c.namespace, Quota: name, Err: ErrUntranslatable}
}
