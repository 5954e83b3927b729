package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// run runs the controller until ctx is done.
func run(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c, err := newControllers(config)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	// This informer holds the few events that tell of refused target pods, where a
	// controller of events would hold all.
	refusals := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(migration.SelectRefusals))
	events := refusals.Core().V1().Events().Informer()
	caches := c.caches()
	caches.Events = migration.FromIndexer[corev1.Event](events.GetIndexer())
	headroom, err := newHeadroom(client, migration.Options{
		Caches:   &caches,
		Quotas:   cached(c.quotas.Cache().List),
		Patch:    patchWith(c.migrations),
		Enqueue:  c.namespaces.Enqueue,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "harvester-headroom"}),
	})
	if err != nil {
		return err
	}
	register(ctx, c, headroom)
	vmims := &vmimHandler{cache: c.vmis.Cache(), vmis: c.vmis}
	c.migrations.OnChange(ctx, "migration-state", vmims.onMigration)

	refusals.Start(ctx.Done())
	defer refusals.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), events.HasSynced) {
		return errors.New("the cache of events did not sync")
	}
	const workers = 5
	if err := c.factory.Start(ctx, workers); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// clean removes from all namespaces what a Harvester that scales by itself has left.
func clean(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list Namespaces: %w", err)
	}
	var failed []error
	for i := range namespaces.Items {
		failed = append(failed, rancher.CleanNamespace(ctx, client.CoreV1(), namespaces.Items[i].Name))
	}
	return errors.Join(failed...)
}

// patchWith patches by a client of wrangler.
func patchWith(c migrationController) func(ctx context.Context, namespace, name string, patch []byte) error {
	return func(_ context.Context, namespace, name string, patch []byte) error {
		_, err := c.Patch(namespace, name, types.MergePatchType, patch)
		return err
	}
}
