package bed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed" // for the command lines
	"math/big"
	"net"
	"os"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"github.com/vmquota/headroom/examples/testbed/try"
)

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
