package main

import (
	"context"
	"fmt"

	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	corecontrollers "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/rancher/wrangler/v3/pkg/schemes"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// Controllers are those that a controller of virtual machines on wrangler has anyway.
type controllers struct {
	factory     *core.Factory
	namespaces  corecontrollers.NamespaceController
	quotas      corecontrollers.ResourceQuotaController
	pods        corecontrollers.PodController
	claims      corecontrollers.PersistentVolumeClaimController
	limitRanges corecontrollers.LimitRangeController
	vmis        vmiController
	migrations  migrationController
}

// Wrangler generates such types for Harvester.
type (
	vmiController       = generic.ControllerInterface[*kubevirtv1.VirtualMachineInstance, *kubevirtv1.VirtualMachineInstanceList]
	migrationController = generic.ControllerInterface[*kubevirtv1.VirtualMachineInstanceMigration, *kubevirtv1.VirtualMachineInstanceMigrationList]
)

func newControllers(config *rest.Config) (*controllers, error) {
	if err := schemes.Register(kubevirtv1.AddToScheme); err != nil {
		return nil, fmt.Errorf("register the kinds of KubeVirt: %w", err)
	}
	factory, err := core.NewFactoryFromConfig(config)
	if err != nil {
		return nil, err
	}
	c, shared := factory.Core().V1(), factory.ControllerFactory()
	return &controllers{
		factory:     factory,
		namespaces:  c.Namespace(),
		quotas:      c.ResourceQuota(),
		pods:        c.Pod(),
		claims:      c.PersistentVolumeClaim(),
		limitRanges: c.LimitRange(),
		vmis: generic.NewController[*kubevirtv1.VirtualMachineInstance, *kubevirtv1.VirtualMachineInstanceList](
			kubevirtv1.VirtualMachineInstanceGroupVersionKind, "virtualmachineinstances", true, shared),
		migrations: generic.NewController[*kubevirtv1.VirtualMachineInstanceMigration, *kubevirtv1.VirtualMachineInstanceMigrationList](
			kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind, "virtualmachineinstancemigrations", true, shared),
	}, nil
}

// caches are those of wrangler, as the library reads them.
func (c *controllers) caches() migration.Caches {
	return migration.Caches{
		Migrations:  cached(c.migrations.Cache().List),
		VMIs:        cached(c.vmis.Cache().List),
		Pods:        cached(c.pods.Cache().List),
		LimitRanges: cached(c.limitRanges.Cache().List),
		PVCs:        cached(c.claims.Cache().List),
		Namespace:   migration.FromStore(c.namespaces.Informer().GetStore()),
	}
}

func cached[T any](list func(namespace string, selector labels.Selector) ([]*T, error)) migration.List[T] {
	return func(_ context.Context, namespace string) ([]*T, error) {
		return list(namespace, labels.Everything())
	}
}
