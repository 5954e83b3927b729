package process

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
)

// Namespace is the system namespace that the ledger is in.
const Namespace = "headroom"

// Parts are what [NewKeeper] puts together.
type Parts struct {
	Client   typedcorev1.ResourceQuotasGetter
	Ledger   ledger.Ledger
	Caches   migration.Caches
	Quotas   migration.List[corev1.ResourceQuota]
	Patch    func(ctx context.Context, namespace, name string, patch []byte) error
	Now      func() time.Time
	Recorder record.EventRecorder // nil: there are no events
	Guard    bool                 // as in applier.Config
}

// NewKeeper returns everything that the library has for one controller.
func NewKeeper(p Parts) (migration.Keeper, error) {
	writer, err := applier.New(applier.Config{
		Ledger: p.Ledger, Quotas: p.Client, List: p.Quotas, Now: p.Now, Recorder: p.Recorder, Guard: p.Guard,
	})
	return migration.Keeper{
		Observer: &migration.Observer{Caches: p.Caches, Ledger: p.Ledger, Now: p.Now},
		Applier:  writer,
		Nudger:   &migration.Nudger{Caches: p.Caches, Quotas: p.Quotas, Patch: p.Patch, Now: p.Now, Recorder: p.Recorder},
	}, err
}
