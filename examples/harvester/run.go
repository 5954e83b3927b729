package main

import (
	"context"
	"errors"
	"time"

	"github.com/rancher/wrangler/v3/pkg/generic"
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
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// Options are what the flags of the program say.
type options struct {
	// system is the namespace of the ledger.
	system string
	// ledgerOnly leaves the quotas to somebody else, who reads the ledger.
	ledgerOnly bool
	// rollback keeps a rollback to a Harvester without the library possible.
	rollback bool

	// namespaces reads Namespaces from the API server.
	namespaces typedcorev1.NamespacesGetter
	// mirror tells the UID of a VMI, if rollback is set.
	mirror func(namespace, vmi string) types.UID
}

// A patcher sends a JSON merge patch to a VMIM.
type patcher func(ctx context.Context, namespace, name string, patch []byte) error

// run runs the controller until ctx is done.
func run(ctx context.Context, config *rest.Config, o options) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c, err := newControllers(config)
	if err != nil {
		return err
	}
	o.namespaces = client.CoreV1()
	if o.rollback {
		o.mirror = uidFrom(c.vmis.Cache())
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	// These two informers hold a few objects, where the controllers of these kinds would
	// hold all: the refusals of target pods among the events, and the ledger among the
	// ConfigMaps.
	refusals := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(migration.SelectRefusals))
	events := refusals.Core().V1().Events().Informer()
	entries := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(o.system), informers.WithTweakListOptions(configmap.Select))
	ledger := configmap.New(client.CoreV1(), o.system,
		configmap.WithInformer(entries.Core().V1().ConfigMaps().Informer()), configmap.WithWriter("harvester"))

	caches := c.caches()
	caches.Events = migration.FromIndexer[corev1.Event](events.GetIndexer())
	h, err := newHeadroom(caches, applier.Config{
		Ledger:   ledger,
		Quotas:   client.CoreV1(),
		List:     cached(c.quotas.Cache().List),
		Now:      time.Now,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "harvester-headroom"}),
	}, patchWith(c.migrations), o)
	if err != nil {
		return err
	}
	h.register(ctx, c)
	vmims := &vmimHandler{cache: c.vmis.Cache(), vmis: c.vmis}
	c.migrations.OnChange(ctx, "migration-state", vmims.onMigration)

	refusals.Start(ctx.Done())
	entries.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), events.HasSynced, entries.Core().V1().ConfigMaps().Informer().HasSynced) {
		return errors.New("the caches of events and of the ledger did not sync")
	}
	if _, err := ledger.OnChange(c.namespaces.Enqueue); err != nil {
		return err
	}
	const workers = 5
	if err := c.factory.Start(ctx, workers); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// limitsFrom asks a namespace for what Rancher was told to give to it.
func limitsFrom(namespaces typedcorev1.NamespacesGetter) func(ctx context.Context, name string) (corev1.ResourceList, error) {
	return func(ctx context.Context, name string) (corev1.ResourceList, error) {
		ns, err := namespaces.Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return rancher.Limits(ns)
	}
}

// uidFrom tells the UID of a VMI that is in a cache; empty, if it is not.
func uidFrom(vmis generic.CacheInterface[*kubevirtv1.VirtualMachineInstance]) func(namespace, name string) types.UID {
	return func(namespace, name string) types.UID {
		vmi, err := vmis.Get(namespace, name)
		if err != nil {
			return ""
		}
		return vmi.UID
	}
}

// patchWith patches by a client of wrangler.
func patchWith(c migrationController) patcher {
	return func(_ context.Context, namespace, name string, patch []byte) error {
		_, err := c.Patch(namespace, name, types.MergePatchType, patch)
		return err
	}
}
