//go:build unix

package main

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
)

// written counts what the API server would store, in bytes of its encoding (protobuf).
type written struct {
	quotas, quotaBytes, largestQuota    int
	records, recordBytes, largestRecord int
}

func (w *written) count() int { return w.quotas + w.records }

func (w *written) version() string { return strconv.Itoa(1000 + w.count()) }

// resourceQuotas is a client that writes into the stores. It has the calls that are made.
type resourceQuotas struct{ *cluster }

type quotasIn struct {
	typedcorev1.ResourceQuotaInterface
	*cluster
}

// ResourceQuotas implements typedcorev1.ResourceQuotasGetter.
func (c resourceQuotas) ResourceQuotas(string) typedcorev1.ResourceQuotaInterface {
	return quotasIn{cluster: c.cluster}
}

// Update implements typedcorev1.ResourceQuotaInterface. It is the quota controller too.
func (c quotasIn) Update(_ context.Context, rq *corev1.ResourceQuota, _ metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	w := &c.written
	w.quotas++
	w.quotaBytes += rq.Size()
	w.largestQuota = max(w.largestQuota, rq.Size())
	rq = rq.DeepCopy()
	rq.ResourceVersion = w.version()
	rq.Status.Hard = rq.Spec.Hard
	return rq.DeepCopy(), c.cluster.quotas.Update(rq)
}

// configMaps is the same for the ledger.
type configMaps struct{ *cluster }

type configMapsIn struct {
	typedcorev1.ConfigMapInterface
	*cluster
}

// ConfigMaps implements typedcorev1.ConfigMapsGetter.
func (c configMaps) ConfigMaps(string) typedcorev1.ConfigMapInterface {
	return configMapsIn{cluster: c.cluster}
}

// Create implements typedcorev1.ConfigMapInterface.
func (c configMapsIn) Create(_ context.Context, cm *corev1.ConfigMap, _ metav1.CreateOptions) (*corev1.ConfigMap, error) {
	w := &c.written
	w.records++
	w.recordBytes += cm.Size()
	w.largestRecord = max(w.largestRecord, cm.Size())
	cm = cm.DeepCopy()
	cm.ResourceVersion = w.version()
	return cm.DeepCopy(), c.records.Add(cm)
}

// Update implements typedcorev1.ConfigMapInterface.
func (c configMapsIn) Update(ctx context.Context, cm *corev1.ConfigMap, _ metav1.UpdateOptions) (*corev1.ConfigMap, error) {
	return c.Create(ctx, cm, metav1.CreateOptions{})
}

// Delete implements typedcorev1.ConfigMapInterface.
func (c configMapsIn) Delete(_ context.Context, name string, _ metav1.DeleteOptions) error {
	c.written.records++
	return c.records.Delete(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}})
}

// informer is the ledger's: nobody listens to it.
type informer struct{ *cluster }

// GetStore implements configmap.Informer.
func (i informer) GetStore() cache.Store { return i.records }

// HasSynced implements configmap.Informer.
func (i informer) HasSynced() bool { return true }

// AddEventHandler implements configmap.Informer.
func (i informer) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return nil, nil
}
