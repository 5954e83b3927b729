package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in that a kubeconfig can name
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/pager"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// pageSize is how many objects are asked for at once.
const pageSize = 500

var (
	vmimResource = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	vmiResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")

	quotaResource = corev1.SchemeGroupVersion.WithResource("resourcequotas")
	eventResource = corev1.SchemeGroupVersion.WithResource("events")
)

func refusals() metav1.ListOptions {
	var options metav1.ListOptions
	migration.SelectRefusals(&options)
	return options
}

// reads are what is asked of a cluster, in this order: a migration is read before
// its pods, and these before the quota that counts them. Of the pods only those
// that KubeVirt starts for virtual machines and their hot-plugged disks.
var reads = []struct {
	resource schema.GroupVersionResource
	options  metav1.ListOptions
}{
	{resource: vmimResource},
	{resource: vmiResource},
	{resource: corev1.SchemeGroupVersion.WithResource("limitranges")},
	{resource: corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")},
	{
		resource: corev1.SchemeGroupVersion.WithResource("pods"),
		options:  metav1.ListOptions{LabelSelector: "kubevirt.io in (virt-launcher,hotplug-disk)"},
	},
	{resource: eventResource, options: refusals()},
	{resource: quotaResource},
}

// readCluster reads the cluster that the kubeconfig names.
func readCluster(ctx context.Context, opts options, p *progress) (scene, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = opts.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: opts.context}
	overrides.Context.Namespace = opts.namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return scene{}, errors.New("no cluster: there is no kubeconfig in $KUBECONFIG or ~/.kube/config; name one with --kubeconfig, or files with -f")
	case err != nil:
		return scene{}, fmt.Errorf("no cluster: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return scene{}, fmt.Errorf("no cluster: %w", err)
	}
	if opts.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return scene{}, fmt.Errorf("no cluster: %w", err)
	}
	s, err := readScene(ctx, client, namespace, p)
	if err != nil {
		return scene{}, err
	}
	s.source.Context = contextName(loader, opts.context, config.Host)
	return s, nil
}

// contextName is what the cluster is called; inside a pod it has an address only.
func contextName(loader clientcmd.ClientConfig, name, host string) string {
	if name != "" {
		return name
	}
	if raw, err := loader.RawConfig(); err == nil && raw.CurrentContext != "" {
		return raw.CurrentContext
	}
	return host
}

// readScene reads namespace; an empty one means all.
func readScene(ctx context.Context, client dynamic.Interface, namespace string, p *progress) (scene, error) {
	s := scene{source: source{Kind: clusterSource}}
	var cache recording.Cache
	kubeVirt := true
	for _, read := range reads {
		if !kubeVirt && read.resource != quotaResource {
			continue // nothing else matters without migrations
		}
		err := readAll(ctx, client.Resource(read.resource).Namespace(namespace), read.resource, read.options, &cache, p)
		switch {
		case err == nil:
		case apierrors.IsNotFound(err) && read.resource == vmimResource:
			kubeVirt = false
			s.notes = append(s.notes, "This cluster has no KubeVirt (it knows no VirtualMachineInstanceMigrations): the quotas are shown as they are.")
		case apierrors.IsForbidden(err) && read.resource == eventResource:
			s.notes = append(s.notes, "Events cannot be listed: a target pod that needs more than its source shows is not seen.")
		default:
			return scene{}, fmt.Errorf("cannot list %s%s: %w", read.resource.Resource, in(namespace), err)
		}
	}
	now := time.Now()
	namespaces := cache.Namespaces()
	if namespace != metav1.NamespaceAll && len(namespaces) == 0 {
		namespaces = []string{namespace}
	}
	for _, name := range namespaces {
		t := newTenant(name, &cache)
		t.snapshot.Now = now
		if len(t.quotas) > 0 || len(t.snapshot.Migrations) > 0 || namespace != metav1.NamespaceAll {
			s.tenants = append(s.tenants, t)
		}
	}
	return s, nil
}

func in(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return ""
	}
	return " in namespace " + namespace
}

// readAll lists a resource page by page into cache.
func readAll(
	ctx context.Context, client dynamic.ResourceInterface, gvr schema.GroupVersionResource, options metav1.ListOptions,
	cache *recording.Cache, p *progress,
) error {
	read := 0
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		page, err := client.List(ctx, options)
		if err != nil {
			return nil, err
		}
		read += len(page.Items)
		p.show("reading %s: %d", gvr.Resource, read)
		return page, nil
	})
	pages.PageSize = pageSize
	list, _, err := pages.List(ctx, options)
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		data, err := json.Marshal(item)
		if err != nil {
			return err
		}
		object, err := recording.Decode(data)
		if err != nil {
			return err
		}
		cache.Apply(recording.Event{Type: watch.Added, Object: object})
		return nil
	})
}
