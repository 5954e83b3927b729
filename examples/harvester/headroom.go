package main

import (
	"context"

	"github.com/rancher/wrangler/v3/pkg/relatedresource"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// This file takes the place of raising, restoring and compensating quotas.

// newHeadroom returns a Controller with the caches and the work queue that options say.
func newHeadroom(client kubernetes.Interface, options migration.Options) (*migration.Controller, error) {
	options.DisabledFor = rancher.HarvesterSkips
	return migration.NewController(migration.Clients{Core: client}, options)
}

// register has every namespace reconciled at the start, and after each event that concerns
// its migrations or its quotas.
func register(ctx context.Context, c *controllers, headroom *migration.Controller) {
	c.namespaces.OnChange(ctx, "headroom", func(name string, ns *corev1.Namespace) (*corev1.Namespace, error) {
		after, err := headroom.Reconcile(ctx, name)
		if after > 0 {
			c.namespaces.EnqueueAfter(name, after)
		}
		return ns, err
	})
	relatedresource.WatchClusterScoped(ctx, "headroom-events", namespaceOf, c.namespaces,
		c.migrations, c.vmis, c.pods, c.claims, c.limitRanges, c.quotas)
}

// namespaceOf returns the namespace to reconcile after a change of object, which is nil if
// it is gone.
func namespaceOf(namespace, _ string, object runtime.Object) ([]relatedresource.Key, error) {
	if object != nil {
		namespace = migration.NamespaceOf(object)
	}
	return []relatedresource.Key{{Name: namespace}}, nil // the empty one is left out
}
