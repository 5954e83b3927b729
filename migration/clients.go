package migration

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Clients are how a [Controller] reaches one cluster. KubeVirt's kinds come through a
// dynamic client, so that no client of KubeVirt is needed.
type Clients struct {
	Core     kubernetes.Interface
	KubeVirt dynamic.Interface
	// Metadata reads of the migrations that KubeVirt keeps no more than their metadata, which
	// is a tenth of the work. If nil, KubeVirt reads them whole.
	Metadata metadata.Interface
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
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	core, err := kubernetes.NewForConfigAndClient(config, client)
	return Clients{Core: core, KubeVirt: kubeVirt, Metadata: of}, err
}
