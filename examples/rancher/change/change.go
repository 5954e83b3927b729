// Package change is the change to Rancher, on a type with the fields that it needs of
// Rancher's. A test holds the lines in README.md to those here, and counts them.
package change

import (
	"context"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	headroom "github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

// A UserContext is a downstream cluster, as config.UserContext of Rancher's pkg/types is.
type UserContext struct {
	RESTConfig rest.Config
	K8sClient  kubernetes.Interface
}

// RegisterDeferred is registerDeferred of Rancher's
// pkg/controllers/managementuser/resourcequota, without what is there before.
func RegisterDeferred(ctx context.Context, cluster *UserContext) error {
	own := func(ctx context.Context) error {
		return migration.Run(ctx, &cluster.RESTConfig, migration.Options{DisabledFor: headroom.HarvesterSkips})
	}
	if _, err := headroom.Start(ctx, headroom.Config{Client: cluster.K8sClient, Now: time.Now, Own: own}); err != nil {
		return err
	}
	return nil
}
