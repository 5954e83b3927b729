package bed

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// NewNamespace creates a namespace whose name begins with prefix, and returns its name
// when pods can be created in it.
func (b *Bed) NewNamespace(ctx context.Context, prefix string) (string, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}}
	created, err := b.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return created.Name, b.awaitServiceAccount(ctx, created.Name)
}

// awaitServiceAccount waits for the service account that a namespace's pods run as.
func (b *Bed) awaitServiceAccount(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		_, err := b.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("namespace %s has no service account: %w", namespace, err)
	}
	return nil
}

// ServiceAccount returns how a service account, which must exist, reaches the API
// server: with a token.
func (b *Bed) ServiceAccount(ctx context.Context, namespace, name string) (*rest.Config, error) {
	seconds := int64(validity.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	answer, err := b.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, name, err)
	}
	config := b.anonymous()
	config.BearerToken = answer.Status.Token
	return config, nil
}
