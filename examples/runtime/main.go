// Runtime is the library in a controller built with controller-runtime: one reconciler
// that watches migrations and keeps quotas right, with its record in memory.
//
//	go run . -leader-elect=false
//
// It takes the kubeconfig that -kubeconfig or $KUBECONFIG names, or the service account of
// its pod. What its role needs is that of examples/controller, but for the ConfigMaps.
package main

import (
	"context"
	"flag"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/vmquota/headroom/migration"
)

func main() {
	leaderElect := flag.Bool("leader-elect", true, "run one replica at a time, in the namespace of the pod")
	metrics := flag.String("metrics-bind-address", ":8080", "where metrics are served; 0: nowhere")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(ctrl.SetupSignalHandler(), *leaderElect, *metrics); err != nil {
		ctrl.Log.Error(err, "the controller has failed")
		os.Exit(1)
	}
}

func run(ctx context.Context, leaderElect bool, metrics string) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	options, err := managerOptions()
	if err != nil {
		return err
	}
	options.LeaderElection, options.LeaderElectionID = leaderElect, "headroom-runtime"
	options.Metrics.BindAddress = metrics
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	r, err := newReconciler(mgr.GetCache(), clientset.CoreV1(), patcher(mgr.GetClient()), time.Now)
	if err != nil {
		return err
	}
	if err := r.watch(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// managerOptions narrow the cache down to what the library reads.
func managerOptions() (ctrl.Options, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, kubevirtv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return ctrl.Options{}, err
		}
	}
	launchers, err := labels.Parse(kubevirtv1.AppLabel + " in (virt-launcher,hotplug-disk)")
	if err != nil {
		return ctrl.Options{}, err
	}
	var refusals metav1.ListOptions
	migration.SelectRefusals(&refusals)
	events, err := fields.ParseSelector(refusals.FieldSelector)
	if err != nil {
		return ctrl.Options{}, err
	}
	return ctrl.Options{Scheme: scheme, Cache: cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:   {Label: launchers},
			&corev1.Event{}: {Field: events},
		},
	}}, nil
}

// patcher sends what the Nudger has to say.
func patcher(c client.Client) func(ctx context.Context, namespace, name string, patch []byte) error {
	return func(ctx context.Context, namespace, name string, patch []byte) error {
		vmim := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		return c.Patch(ctx, vmim, client.RawPatch(types.MergePatchType, patch))
	}
}
