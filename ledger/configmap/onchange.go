package configmap

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// OnChange calls f with each tenant namespace whose record has changed, whoever changed
// it, and in the beginning with each that has one. Reads of this Ledger show the change
// by then. The calls come one after the other, from the informer: f should put the
// namespace on a queue and return.
//
// The registration that is returned tells when f was called for all that were there in
// the beginning. It takes [WithInformer].
func (l *Ledger) OnChange(f func(namespace string)) (cache.ResourceEventHandlerRegistration, error) {
	if l.cache == nil {
		return nil, errors.New("a ledger without an informer does not see changes")
	}
	tell := func(object any) {
		if namespace, ok := l.tenantOf(object); ok {
			f(namespace)
		}
	}
	return l.cache.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell,
		UpdateFunc: func(before, after any) {
			if !unchanged(before, after) {
				tell(after)
			}
		},
		DeleteFunc: tell,
	})
}

// tenantOf returns the tenant namespace of an object from the informer. The name of the
// ConfigMap decides, as it does when one is read: a label can be lost.
func (l *Ledger) tenantOf(object any) (string, bool) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return "", false
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil || namespace != l.system {
		return "", false
	}
	return strings.CutPrefix(name, prefix)
}

// unchanged reports whether an update is one that informers make up when they resync.
func unchanged(before, after any) bool {
	b, ok := before.(*corev1.ConfigMap)
	a, isToo := after.(*corev1.ConfigMap)
	return ok && isToo && a.ResourceVersion == b.ResourceVersion
}
