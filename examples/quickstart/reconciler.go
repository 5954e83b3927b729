package main

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A reconciler makes the enforced limits of a namespace's quotas what they must be.
type reconciler struct {
	caches migration.Caches
	quotas listersv1.ResourceQuotaLister
	client kubernetes.Interface
}

// reconcile is called after every event in namespace that concerns virtual machines,
// migrations or quotas.
func (r *reconciler) reconcile(ctx context.Context, namespace string) error {
	snapshot, err := r.caches.Snapshot(ctx, namespace)
	if err != nil {
		return err
	}
	inFlight := migration.InFlight(snapshot)
	quotas, err := r.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	for _, rq := range quotas {
		hard := quota.Effective(rq.Spec.Hard, quota.Under(rq, inFlight), rq.Status.Used)
		if quota.Equal(hard, rq.Status.Hard) {
			continue
		}
		enforced := rq.DeepCopy()
		enforced.Status.Hard = hard
		if _, err := r.client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, enforced, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
