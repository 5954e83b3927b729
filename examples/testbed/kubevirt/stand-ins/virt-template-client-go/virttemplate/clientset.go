// Package virttemplate has a client that cannot be made.
package virttemplate

import (
	"errors"

	"k8s.io/client-go/rest"
)

// A Clientset would read templates.
type Clientset struct{}

// NewForConfig fails.
func NewForConfig(*rest.Config) (*Clientset, error) {
	return nil, errors.New("templates of virtual machines are not served here")
}

// TemplateV1beta1 would be the client of the API version v1beta1.
func (*Clientset) TemplateV1beta1() TemplateV1beta1Client {
	return TemplateV1beta1Client{}
}

// A TemplateV1beta1Client is the client of an API version.
type TemplateV1beta1Client struct{}

// RESTClient returns nil.
func (TemplateV1beta1Client) RESTClient() rest.Interface {
	return nil
}
