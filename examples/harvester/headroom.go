package main

import (
	"context"
	"time"

	"github.com/rancher/wrangler/v3/pkg/relatedresource"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// A headroom keeps the quotas of namespaces right while virtual machines migrate. This
// file is what takes the place of raising, restoring and compensating quotas.
type headroom struct {
	observer *migration.Observer
	takeover *rancher.Takeover
	applier  *applier.Applier // nil: somebody else writes the quotas, such as Rancher
	nudger   *migration.Nudger
	enqueue  func(namespace string, after time.Duration)
}

// newHeadroom returns a headroom that reads migrations from caches, and patches them with
// patch.
func newHeadroom(caches migration.Caches, config applier.Config, patch patcher, o options) (h *headroom, err error) {
	h = &headroom{
		observer: &migration.Observer{Caches: caches, Ledger: config.Ledger, Now: config.Now},
		takeover: &rancher.Takeover{Quotas: config.Quotas, List: config.List, Limits: limitsFrom(o.namespaces), Ledger: config.Ledger, UID: o.mirror},
		nudger:   &migration.Nudger{Caches: caches, Quotas: config.List, Patch: patch, Now: config.Now, Recorder: config.Recorder},
	}
	if o.mirror != nil {
		config.Quotas = rancher.Mirrored(config.Quotas, config.Ledger, o.mirror)
	}
	if !o.ledgerOnly {
		config.DisabledFor = rancher.HarvesterSkips
		h.applier, err = applier.New(config)
	}
	return h, err
}

// register has onNamespace called for each namespace at the start, and whenever
// something happens that matters to its migrations.
func (h *headroom) register(ctx context.Context, c *controllers) {
	h.enqueue = c.namespaces.EnqueueAfter
	c.namespaces.OnChange(ctx, "headroom", h.onNamespace)
	relatedresource.WatchClusterScoped(ctx, "headroom-events", namespaceOf, c.namespaces,
		c.migrations, c.vmis, c.pods, c.claims, c.limitRanges, c.quotas)
}

// namespaceOf returns the namespace to look at after a change of object, which is nil if
// it is gone.
func namespaceOf(namespace, _ string, object runtime.Object) ([]relatedresource.Key, error) {
	switch object.(type) {
	case nil, *corev1.ResourceQuota, *corev1.LimitRange:
		return []relatedresource.Key{{Name: namespace}}, nil
	}
	return []relatedresource.Key{{Name: migration.Namespace(object)}}, nil // the empty one is left out
}

// onNamespace looks at one namespace. It does not matter what has happened in it.
func (h *headroom) onNamespace(name string, ns *corev1.Namespace) (*corev1.Namespace, error) {
	ctx := context.Background()
	if err := h.observer.Observe(ctx, name); err != nil {
		return ns, err
	}
	if h.applier != nil {
		if err := h.takeover.Adopt(ctx, name); err != nil {
			return ns, err
		}
		result, err := h.applier.Apply(ctx, name)
		h.again(name, result.RetryAfter)
		if err := applier.WorthRetry(err); err != nil {
			return ns, err
		}
	}
	after, err := h.nudger.Nudge(ctx, name)
	h.again(name, after)
	return ns, err
}

func (h *headroom) again(name string, after time.Duration) {
	if after > 0 {
		h.enqueue(name, after)
	}
}
