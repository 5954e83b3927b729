package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A reconciler makes the limits of a namespace's quotas what they must be.
type reconciler struct {
	observer migration.Observer // writes the ledger
	ledger   ledger.Ledger
	quotas   listersv1.ResourceQuotaLister
	client   kubernetes.Interface
	static   map[string]corev1.ResourceList // what the tenant was given, by namespace
}

// reconcile is called when anything happens in namespace that has to do with virtual
// machines, migrations or quotas. An error means that it is to be called again.
func (r *reconciler) reconcile(ctx context.Context, namespace string) error {
	if err := r.observer.Observe(ctx, namespace); err != nil {
		return err
	}
	inFlight, err := r.ledger.Migrations(ctx, namespace)
	if err != nil {
		return err
	}
	quotas, err := r.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	for _, rq := range quotas {
		hard := quota.Effective(r.static[namespace], quota.Under(rq, inFlight), rq.Status.Used)
		if quota.Equal(hard, rq.Spec.Hard) {
			continue
		}
		raised := rq.DeepCopy()
		raised.Spec.Hard = hard
		if _, err := r.client.CoreV1().ResourceQuotas(namespace).Update(ctx, raised, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
