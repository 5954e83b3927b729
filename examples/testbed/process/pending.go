package process

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// raisePending is the policy of Harvester's controllers: spec.hard is raised for every
// migration from its creation until it has succeeded or failed. The policy is as good
// here as it can be: it raises all resources of all quotas by what the source pod is
// charged, is level-triggered, and knows the static limits. Those are spec.hard at the
// first sight of a quota, so the process has to be started while no VM migrates.
type raisePending struct {
	client typedcorev1.ResourceQuotasGetter
	quotas migration.List[corev1.ResourceQuota]
	caches migration.Caches

	mu     sync.Mutex
	static map[types.UID]corev1.ResourceList
}

func (r *raisePending) reconcile(ctx context.Context, namespace string) (time.Duration, error) {
	s, err := r.caches.Snapshot(ctx, namespace)
	if err != nil {
		return 0, err
	}
	quotas, err := r.quotas(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for _, rq := range quotas {
		hard := r.staticOf(rq)
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
		raised := rq.DeepCopy()
		raised.Spec.Hard = hard
		if _, err := r.client.ResourceQuotas(namespace).Update(ctx, raised, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// staticOf returns a copy of the static limits of rq.
func (r *raisePending) staticOf(rq *corev1.ResourceQuota) corev1.ResourceList {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.static[rq.UID]; !known {
		r.static[rq.UID] = rq.Spec.Hard.DeepCopy()
	}
	return r.static[rq.UID].DeepCopy()
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
