package bed

import (
	"context"
	"crypto/tls"
	_ "embed" // for the command lines
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// A Component is one of the real processes of a bed.
type Component string

// The components of a bed, in the order in which they are started.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	OtherAPIServer    Component = "other-kube-apiserver" // if Config.APIServers is two
	ControllerManager Component = "kube-controller-manager"
	VirtController    Component = "virt-controller"
)

// all are the components that a bed can have, in the order in which they are started.
var all = []Component{Etcd, APIServer, OtherAPIServer, ControllerManager, VirtController}

// ports are those at which the components serve.
var ports = map[Component]int{Etcd: 21379, APIServer: 21381, OtherAPIServer: 21382, ControllerManager: 21383, VirtController: 21384}

//go:embed components.yaml
var commandLines []byte

// Components returns the components that the bed has, in the order in which they are started.
func (b *Bed) Components() []Component {
	return slices.DeleteFunc(slices.Clone(all), func(c Component) bool { return b.processes[c] == nil })
}

// newHost draws a loopback address by lot, so that nobody else has its ports.
func newHost() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
}

// url is where a component serves.
func (b *Bed) url(scheme string, of Component) string {
	return fmt.Sprintf("%s://%s:%d", scheme, b.host, ports[of])
}

// newProcess returns the process of a component, which is not started yet.
func (b *Bed) newProcess(t try.T, component Component) *process {
	var lines map[Component][]string
	require.NoError(t, yaml.Unmarshal(commandLines, &lines))
	args := lines[component]
	variables := map[string]string{
		"DIR": b.dir, "HOST": b.host, "NAME": string(component), "PORT": fmt.Sprint(ports[component]), "KUBEVIRT": b.versions.KubeVirt,
	}
	for i := range args {
		args[i] = os.Expand(args[i], func(name string) string { return variables[name] })
	}
	program := controlPlane
	switch component {
	case APIServer, OtherAPIServer:
		args = append(args, b.versions.apiServerFlags()...)
	case ControllerManager:
		if b.quotaSync > 0 {
			args = append(args, "--resource-quota-sync-period="+b.quotaSync.String())
		}
	case VirtController:
		program = kubevirt
	default: // etcd
	}
	return &process{name: component, dir: b.dir, program: b.binaries[program], args: args, log: b.log, lock: b.locks[1]}
}

func (b *Bed) path(name string) string {
	return filepath.Join(b.dir, name)
}

// ready waits until the component serves.
func (b *Bed) ready(t try.T, component Component) {
	t.Helper()
	try.Eventually(t, func(t try.T) {
		process := b.processes[component]
		try.Must(process.pid())(t)
		require.NoError(t, b.check(t, component), "the end of %s:\n%s", process.logFile(), process.tail())
	})
}

func (b *Bed) check(t try.T, component Component) error {
	switch component {
	case Etcd:
		return ask(t.Context(), b.url("http", Etcd)+"/health", `"health":"true"`)
	case APIServer, OtherAPIServer:
		config := b.Config()
		config.Host = b.url("https", component)
		client := try.Must(kubernetes.NewForConfig(config))(t)
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error()
	case ControllerManager:
		return ask(t.Context(), b.url("https", ControllerManager)+"/healthz", "ok")
	default:
		return ask(t.Context(), b.url("https", VirtController)+"/leader", `"leader":"true"`)
	}
}

// asker talks to servers that sign their certificates themselves.
var asker = &http.Client{
	Timeout: 2 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	},
}

// ask returns nil if the answer has want in it, white space aside.
func ask(ctx context.Context, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := asker.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer := strings.Join(strings.Fields(string(body)), "")
	if response.StatusCode != http.StatusOK || !strings.Contains(answer, want) {
		return fmt.Errorf("%s: %s %s", url, response.Status, answer)
	}
	return nil
}

// Kubeconfig returns config, which has everything in itself, as a kubeconfig.
func Kubeconfig(config *rest.Config) clientcmdapi.Config {
	const name = "headroom-testbed"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	return *kubeconfig
}
