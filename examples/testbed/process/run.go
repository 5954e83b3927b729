package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
)

const workers = 4

// A reconciler works on one namespace at a time.
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
	parts := Parts{
		Client: client, Caches: i.caches(), Quotas: i.listQuotas(), ConfigMaps: i.configMaps, Now: time.Now,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: string(program)}),
		Patch: func(ctx context.Context, namespace, name string, patch []byte) error {
			_, err := objects.Resource(virt.Migrations).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	var reconcile reconciler
	switch program {
	case Headroom:
		library, err := NewLibrary(parts)
		if err != nil {
			return err
		}
		reconcile = library.Reconcile
	case RaisePending:
		reconcile = raisePending{client: client.CoreV1(), quotas: parts.Quotas, caches: parts.Caches}.reconcile
	default:
		return fmt.Errorf("no program %q", program)
	}
	return (&controller{informers: i, reconcile: reconcile, log: log}).run(ctx)
}

// A controller calls a reconciler for every namespace that something happens in.
type controller struct {
	informers *informers
	reconcile reconciler
	queue     workqueue.TypedRateLimitingInterface[string]
	log       io.Writer
}

func (c *controller) run(ctx context.Context) error {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, time.Minute)
	c.queue = workqueue.NewTypedRateLimitingQueue(limiter)
	tell := func(object any) {
		if namespace := Concerned(object); namespace != "" {
			c.queue.Add(namespace)
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, after any) { tell(after) }, DeleteFunc: tell}
	if err := c.informers.start(ctx, handler); err != nil {
		return err
	}
	fmt.Fprintln(c.log, "ready")
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	group.Wait()
	return nil
}

func (c *controller) next(ctx context.Context) bool {
	namespace, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(namespace)
	again, err := c.reconcile(ctx, namespace)
	switch {
	case err != nil && ctx.Err() == nil:
		fmt.Fprintf(c.log, "%s: %v\n", namespace, err)
	case err == nil:
		c.queue.Forget(namespace)
	}
	if again > 0 {
		c.queue.AddAfter(namespace, again)
	}
	if err != nil && !waits(err) {
		c.queue.AddRateLimited(namespace)
	}
	return true
}

// waits reports whether trying again is no use before something has changed.
func waits(err error) bool {
	return errors.Is(err, applier.ErrForbidden) || errors.Is(err, applier.ErrUnreadable) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}
