package proof

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

const (
	rancherUser  = "system:serviceaccount:cattle-system:rancher"
	headroomUser = "headroom"
)

// What all tests share: one bed with Rancher's lock and an observer, and the projects of its
// Rancher, each namespace with one of its own.
var (
	stage                 *onbed.Stage
	admin                 kubernetes.Interface
	asRancher, asHeadroom *rest.Config
	projects              model.Projects
)

func TestMain(m *testing.M) {
	onbed.Main(m, func(t try.T, s *onbed.Stage) {
		stage, admin = s, s.Client
		asRancher, asHeadroom = s.Bed.User(t, rancherUser, "system:masters"), s.Bed.User(t, headroomUser)
		s.Bed.LockQuotas(t)
		rights := try.Must(os.ReadFile("rights.yaml"))(t)
		s.Bed.Create(t, bytes.ReplaceAll(rights, []byte("NAMESPACE"), []byte(rancher.DefaultNamespace)))
		require.NoError(t, observe(t.Context(), s.Bed.User(t, "virt")))
	})
}

// observe is the virtualization side: it writes the ledger, and wakes KubeVirt. It runs
// until ctx is done.
func observe(ctx context.Context, config *rest.Config) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	records := informers.NewSharedInformerFactoryWithOptions(clients.Core, 0,
		informers.WithNamespace(rancher.DefaultNamespace), informers.WithTweakListOptions(configmap.Select))
	ledger := configmap.New(clients.Core.CoreV1(), rancher.DefaultNamespace, configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	records.Start(ctx.Done())
	records.WaitForCacheSync(ctx.Done())
	observer, err := migration.NewController(clients, migration.Options{Ledger: ledger, RecordOnly: true, Recorder: &record.FakeRecorder{}})
	if err != nil {
		return err
	}
	if err := observer.Start(ctx); err != nil {
		return err
	}
	go observer.Work(ctx)
	return nil
}
