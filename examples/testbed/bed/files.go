package bed

import (
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// virt-controller loads its certificate anew whenever anything in the folder of the
// certificate is written, and logs that. So there is nothing else in that folder, least of
// all the log.
const (
	certificates      = "certificates"
	serverCertificate = certificates + "/server.crt"
	serverKey         = certificates + "/server.key"
)

// writeFiles writes what the components read, and makes the administrator's client.
func (b *Bed) writeFiles() error {
	var err error
	if b.authority, err = newAuthority(); err != nil {
		return err
	}
	server, err := b.authority.server(b.addresses.host)
	if err != nil {
		return err
	}
	tokens, err := newKey()
	if err != nil {
		return err
	}
	tokensKey, err := encodeKey(tokens)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.path(certificates), 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":            b.authority.pem,
		serverCertificate:   server.certificate,
		serverKey:           server.key,
		"tokens.key":        tokensKey,
		"audit-policy.yaml": auditPolicy,
	} {
		if err := os.WriteFile(b.path(name), content, 0o600); err != nil {
			return err
		}
	}

	if b.config, err = b.User("admin", "system:masters"); err != nil {
		return err
	}
	if err := writeKubeconfig(b.Kubeconfig(), b.config); err != nil {
		return err
	}
	manager, err := b.User("system:kube-controller-manager")
	if err != nil {
		return err
	}
	if err := writeKubeconfig(b.path("kube-controller-manager.kubeconfig"), manager); err != nil {
		return err
	}
	b.client, err = kubernetes.NewForConfig(b.config)
	return err
}

// User returns how a user reaches the API server. Only its groups and RBAC give it any
// rights; system:masters may do everything.
func (b *Bed) User(name string, groups ...string) (*rest.Config, error) {
	pair, err := b.authority.user(name, groups...)
	if err != nil {
		return nil, err
	}
	config := b.anonymous()
	config.CertData, config.KeyData = pair.certificate, pair.key
	return config, nil
}

// anonymous returns how somebody without a name reaches the API server. It does not
// limit how often.
func (b *Bed) anonymous() *rest.Config {
	return &rest.Config{
		Host:            b.addresses.url("https", b.addresses.api),
		TLSClientConfig: rest.TLSClientConfig{CAData: b.authority.pem},
		QPS:             -1,
		WarningHandler:  rest.NoWarnings{},
	}
}
