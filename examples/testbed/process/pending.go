package process

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeinformers "k8s.io/client-go/informers"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
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

	static sync.Map // by the UID of the quota, corev1.ResourceLists that are read only
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
		static, _ := r.static.LoadOrStore(rq.UID, rq.Spec.Hard)
		hard := static.(corev1.ResourceList).DeepCopy() //nolint:forcetypeassert // nothing else is stored
		for _, m := range s.Migrations {
			if m.IsFinal() {
				continue
			}
			surge := sourceOf(m, s)
			for name, limit := range hard {
				hard[name] = amounts.Plus(limit, surge[name])
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

// sourceOf returns what the pod is charged that m migrates from.
func sourceOf(m *kubevirtv1.VirtualMachineInstanceMigration, s migration.Snapshot) corev1.ResourceList {
	for _, vmi := range s.VMIs {
		for _, pod := range s.Pods {
			if vmi.Name == m.Spec.VMIName && pod.Labels[kubevirtv1.CreatedByLabel] == string(vmi.UID) && pod.Spec.NodeName == vmi.Status.NodeName {
				if footprint := quota.Footprint(pod); len(footprint) > 1 {
					return footprint
				}
			}
		}
	}
	return nil
}

// runRaisePending runs the policy [RaisePending] on informers of its own.
func runRaisePending(ctx context.Context, clients migration.Clients) error {
	core := kubeinformers.NewSharedInformerFactory(clients.Core, 0).Core().V1()
	quotas, pods := core.ResourceQuotas().Informer(), core.Pods().Informer()
	vmis, vmims := virt.Informer(clients.KubeVirt, virt.Instances), virt.Informer(clients.KubeVirt, virt.Migrations)
	policy := &raisePending{
		client: clients.Core.CoreV1(),
		quotas: migration.FromIndexer[corev1.ResourceQuota](quotas.GetIndexer()),
		caches: migration.Caches{
			Migrations: migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](vmims.GetIndexer()),
			VMIs:       migration.FromIndexer[kubevirtv1.VirtualMachineInstance](vmis.GetIndexer()),
			Pods:       migration.FromIndexer[corev1.Pod](pods.GetIndexer()),
		},
	}
	l, err := loop.New(loop.Config{Reconcile: policy.reconcile, Urgent: migration.InProgress})
	if err != nil {
		return err
	}
	if err := virt.Watch(ctx, l.Handler(migration.NamespaceOf), quotas, pods, vmis, vmims); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "ready")
	l.Run(ctx)
	return nil
}
