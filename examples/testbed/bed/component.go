package bed

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed" // for the command lines
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
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

// virt-controller loads its certificate anew whenever anything in the folder of the
// certificate is written, and logs that. So there is nothing else in that folder, least of
// all the log.
const (
	certificates      = "certificates"
	serverCertificate = certificates + "/server.crt"
	serverKey         = certificates + "/server.key"
)

// writeFiles writes what the components read, and makes the administrator's clients.
func (b *Bed) writeFiles(t try.T) {
	b.authority = newAuthority(t)
	certificate, key := b.authority.sign(t, "kube-apiserver", nil, net.ParseIP(b.host))
	require.NoError(t, os.MkdirAll(b.path(certificates), 0o700))
	for name, content := range map[string][]byte{
		"ca.crt":            b.authority.pem,
		serverCertificate:   certificate,
		serverKey:           key,
		"tokens.key":        try.Must(keyutil.MakeEllipticPrivateKeyPEM())(t),
		"audit-policy.yaml": auditPolicy,
	} {
		require.NoError(t, os.WriteFile(b.path(name), content, 0o600))
	}
	b.config = b.User(t, "admin", "system:masters")
	require.NoError(t, WriteKubeconfig(b.Kubeconfig(), b.config))
	require.NoError(t, WriteKubeconfig(b.path("kube-controller-manager.kubeconfig"), b.User(t, "system:kube-controller-manager")))
	b.client = try.Must(kubernetes.NewForConfig(b.config))(t)
	b.objects = try.Must(dynamic.NewForConfig(b.config))(t)
}

// User returns how a user reaches the API server. Only its groups and RBAC give it any
// rights; system:masters may do everything.
func (b *Bed) User(t try.T, name string, groups ...string) *rest.Config {
	t.Helper()
	config := b.anonymous()
	config.CertData, config.KeyData = b.authority.sign(t, name, groups)
	return config
}

// anonymous returns how somebody without a name reaches the API server. It does not
// limit how often.
func (b *Bed) anonymous() *rest.Config {
	return &rest.Config{
		Host:            b.url("https", APIServer),
		TLSClientConfig: rest.TLSClientConfig{CAData: b.authority.pem},
		QPS:             -1,
		WarningHandler:  rest.NoWarnings{},
	}
}

// WriteKubeconfig writes config, which has everything in itself, as a kubeconfig.
func WriteKubeconfig(path string, config *rest.Config) error {
	return clientcmd.WriteToFile(Kubeconfig(config), path)
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

// NewNamespace creates a namespace whose name begins with prefix, and returns its name
// when pods can be created in it.
func (b *Bed) NewNamespace(t try.T, prefix string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}
	created := try.Must(b.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}))(t)
	b.awaitServiceAccount(t, created.Name)
	return created.Name
}

// awaitServiceAccount waits for the service account that a namespace's pods run as.
func (b *Bed) awaitServiceAccount(t try.T, namespace string) {
	t.Helper()
	try.Eventually(t, func(t try.T) {
		try.Must(b.client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{}))(t)
	})
}

// ServiceAccount returns how a service account, which must exist, reaches the API
// server: with a token.
func (b *Bed) ServiceAccount(t try.T, namespace, name string) *rest.Config {
	t.Helper()
	seconds := int64(validity.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer := try.Must(b.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, request, metav1.CreateOptions{}))(t)
	config := b.anonymous()
	config.BearerToken = answer.Status.Token
	return config
}

// validity is how long certificates and tokens of a bed are valid.
const validity = 30 * 24 * time.Hour

// An authority signs the certificates of a bed.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

func newAuthority(t try.T) *authority {
	a := &authority{key: newKey(t)}
	a.certificate = try.Must(cert.NewSelfSignedCACert(cert.Config{CommonName: "headroom-testbed"}, a.key))(t)
	a.pem = try.Must(cert.EncodeCertificates(a.certificate))(t)
	return a
}

func newKey(t try.T) *ecdsa.PrivateKey {
	return try.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

// sign returns what a user shows the API server, or a server at an address its clients: a certificate
// and its key, both in PEM.
func (a *authority) sign(t try.T, name string, groups []string, addresses ...net.IP) (certificate, key []byte) {
	private := newKey(t)
	template := &x509.Certificate{
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost", "kubernetes.default.svc"}, IPAddresses: addresses,
	}
	der := try.Must(x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key))(t)
	signed := try.Must(x509.ParseCertificate(der))(t)
	return try.Must(cert.EncodeCertificates(signed))(t), try.Must(keyutil.MarshalPrivateKeyToPEM(private))(t)
}
