package process

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/dynamicinformer"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
)

// runRaisePending runs the policy [RaisePending] on informers of its own.
func runRaisePending(ctx context.Context, config *rest.Config, log io.Writer) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	core := kubeinformers.NewSharedInformerFactory(clients.Core, 0).Core().V1()
	kubeVirt := dynamicinformer.NewDynamicSharedInformerFactory(clients.KubeVirt, 0)
	quotas, pods := core.ResourceQuotas().Informer(), core.Pods().Informer()
	vmis, vmims := kubeVirt.ForResource(virt.Instances).Informer(), kubeVirt.ForResource(virt.Migrations).Informer()
	policy := &raisePending{
		client: clients.Core.CoreV1(),
		quotas: migration.FromIndexer[corev1.ResourceQuota](quotas.GetIndexer()),
		caches: migration.Caches{
			Migrations: migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](vmims.GetIndexer()),
			VMIs:       migration.FromIndexer[kubevirtv1.VirtualMachineInstance](vmis.GetIndexer()),
			Pods:       migration.FromIndexer[corev1.Pod](pods.GetIndexer()),
		},
		static: map[types.UID]corev1.ResourceList{},
	}
	l, err := loop.New(loop.Config{Reconcile: policy.reconcile, Urgent: migration.InProgress})
	if err != nil {
		return err
	}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{quotas, pods, vmis, vmims} {
		if err := informer.SetTransform(migration.Trim); err != nil {
			return err
		}
		registration, err := informer.AddEventHandler(l.Handler(migration.NamespaceOf))
		if err != nil {
			return err
		}
		synced = append(synced, registration.HasSynced)
		go informer.RunWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return errors.New("ended before the caches were synced")
	}
	fmt.Fprintln(log, "ready")
	l.Run(ctx)
	return nil
}
