package process

import (
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
)

// A reconciler works on one namespace at a time, and says after what time to do so again.
type reconciler func(ctx context.Context, namespace string) (time.Duration, error)

// run runs a program until ctx is done.
func run(ctx context.Context, program Program, config *rest.Config, log io.Writer) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	i := newInformers(client, objects)
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	records := configmap.New(client.CoreV1(), Namespace, configmap.WithInformer(i.configMaps))
	look, err := program.reconciler(Parts{
		Client: client.CoreV1(), Ledger: records, Caches: i.caches(), Quotas: i.listQuotas(), Now: time.Now,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: string(program)}),
		Patch: func(ctx context.Context, namespace, name string, patch []byte) error {
			_, err := objects.Resource(virt.Migrations).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	})
	if err != nil {
		return err
	}
	l, err := loop.New(loop.Config{Look: look, Namespaces: i.tenants, Now: time.Now, Urgent: migration.InProgress})
	if err != nil {
		return err
	}
	if _, err := records.OnChange(l.Add); err != nil {
		return err
	}
	if err := i.start(ctx, l.Handler(migration.Namespace)); err != nil {
		return err
	}
	fmt.Fprintln(log, "ready")
	l.Run(ctx)
	return nil
}

// reconciler returns what the program does with a namespace.
func (program Program) reconciler(p Parts) (reconciler, error) {
	switch program {
	case Headroom, Guarded:
		p.Guard = program == Guarded
		keeper, err := NewKeeper(p)
		return keeper.Keep, err
	case RaisePending:
		return raisePending{client: p.Client, quotas: p.Quotas, caches: p.Caches}.reconcile, nil
	default:
		return nil, fmt.Errorf("no program %q", program)
	}
}
