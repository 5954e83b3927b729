package process

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// raisePending is the policy of Harvester's controllers: a quota is raised for every
// migration from its creation until it has succeeded or failed. It is made as good as
// that policy can be: all resources are raised by what the source pod is charged, in all
// quotas, level-triggered, and it knows the static limits for certain.
type raisePending struct {
	client typedcorev1.ResourceQuotasGetter
	quotas migration.List[corev1.ResourceQuota]
	caches migration.Caches
}

func (r raisePending) reconcile(ctx context.Context, namespace string) (time.Duration, error) {
	s, err := r.caches.Snapshot(ctx, namespace)
	if err != nil {
		return 0, err
	}
	quotas, err := r.quotas(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for _, rq := range quotas {
		static, err := applier.Static(rq)
		if err != nil {
			return 0, err
		}
		hard := static.DeepCopy()
		for _, m := range s.Migrations {
			if m.IsFinal() {
				continue
			}
			surge := sourceOf(m, s)
			for name, limit := range hard {
				limit.Add(surge[name])
				hard[name] = limit
			}
		}
		if quota.Equal(hard, rq.Spec.Hard) {
			continue
		}
		if _, err := r.client.ResourceQuotas(namespace).Update(ctx, applier.WithLimits(rq, static, hard), metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// sourceOf returns what the pod is charged that m migrates from.
func sourceOf(m *kubevirtv1.VirtualMachineInstanceMigration, s migration.Snapshot) corev1.ResourceList {
	i := slices.IndexFunc(s.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Name == m.Spec.VMIName })
	if i < 0 {
		return nil
	}
	for _, pod := range s.Pods {
		if pod.Labels[kubevirtv1.CreatedByLabel] == string(s.VMIs[i].UID) && pod.Spec.NodeName == s.VMIs[i].Status.NodeName {
			if footprint := quota.Footprint(pod); len(footprint) > 1 {
				return footprint
			}
		}
	}
	return nil
}
