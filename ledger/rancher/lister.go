package rancher

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	listers "k8s.io/client-go/listers/core/v1"
)

// Lister returns a lister that reads as [Shim.Shown] says. What is in the cache is not
// modified, and not copied unless it is raised.
func (s *Shim) Lister(lister listers.ResourceQuotaLister) listers.ResourceQuotaLister {
	return &shownLister{ResourceQuotaLister: lister, shim: s}
}

type shownLister struct {
	listers.ResourceQuotaLister
	shim *Shim
}

func (l *shownLister) List(selector labels.Selector) ([]*corev1.ResourceQuota, error) {
	quotas, err := l.ResourceQuotaLister.List(selector)
	return l.shim.ShownAll(quotas), err
}

func (l *shownLister) ResourceQuotas(namespace string) listers.ResourceQuotaNamespaceLister {
	return &namespaceLister{ResourceQuotaNamespaceLister: l.ResourceQuotaLister.ResourceQuotas(namespace), shim: l.shim}
}

type namespaceLister struct {
	listers.ResourceQuotaNamespaceLister
	shim *Shim
}

func (l *namespaceLister) List(selector labels.Selector) ([]*corev1.ResourceQuota, error) {
	quotas, err := l.ResourceQuotaNamespaceLister.List(selector)
	return l.shim.ShownAll(quotas), err
}

func (l *namespaceLister) Get(name string) (*corev1.ResourceQuota, error) {
	rq, err := l.ResourceQuotaNamespaceLister.Get(name)
	return l.shim.Shown(rq), err
}
