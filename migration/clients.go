package migration

import (
	"net/http"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Clients are how a [Controller] reaches one cluster. KubeVirt's kinds come through a
// dynamic client, so that no client of KubeVirt is needed.
type Clients struct {
	Core     kubernetes.Interface
	KubeVirt dynamic.Interface
	// Metadata reads of the migrations that KubeVirt keeps no more than their metadata, which
	// is a tenth of the work. If nil, KubeVirt reads them whole.
	Metadata metadata.Interface
	// Typed reads the migrations and VMIs of a namespace without a detour through maps, which
	// is half of the work. If nil, KubeVirt reads them.
	Typed rest.Interface
}

// typedFor returns a client of KubeVirt's API for Clients.Typed.
func typedFor(config *rest.Config, client *http.Client) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := kubevirtv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &kubevirtv1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientForConfigAndClient(config, client)
}

// kubeVirt lists and watches a resource of KubeVirt in namespace; the empty one stands for all.
func (c Clients) kubeVirt(resource schema.GroupVersionResource, namespace string) *cache.ListWatch {
	if c.Typed == nil {
		return listWatch(c.KubeVirt.Resource(resource).Namespace(namespace))
	}
	return cache.NewListWatchFromClient(c.Typed, resource.Resource, namespace, fields.Everything())
}

// ClientsFor returns the clients of config, which is not changed: core objects are read in
// protobuf, and there is no limit on the client's side, because what is sent is a handful of
// requests for each migration, and each is urgent. They share one connection.
func ClientsFor(config *rest.Config) (Clients, error) {
	config = rest.CopyConfig(config)
	if config.QPS == 0 {
		config.QPS = -1
	}
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return Clients{}, err
	}
	kubeVirt, err := dynamic.NewForConfigAndClient(config, client)
	if err != nil {
		return Clients{}, err
	}
	of, err := metadata.NewForConfigAndClient(config, client)
	if err != nil {
		return Clients{}, err
	}
	typed, err := typedFor(config, client)
	if err != nil {
		return Clients{}, err
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	core, err := kubernetes.NewForConfigAndClient(config, client)
	return Clients{Core: core, KubeVirt: kubeVirt, Metadata: of, Typed: typed}, err
}
