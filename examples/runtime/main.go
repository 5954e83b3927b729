// Runtime is the library in a manager of controller-runtime: one call of SetupWithManager.
//
//	go run . -leader-elect=false
//
// It takes the kubeconfig that -kubeconfig or $KUBECONFIG names, or the service account of
// its pod. What its role needs is that of examples/controller.
package main

import (
	"context"
	"flag"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
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
	if err := SetupWithManager(mgr, migration.Options{Recorder: mgr.GetEventRecorderFor("headroom")}); err != nil {
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
	var pods, refusals metav1.ListOptions
	migration.SelectPods(&pods)
	migration.SelectRefusals(&refusals)
	launchers, err := labels.Parse(pods.LabelSelector)
	if err != nil {
		return ctrl.Options{}, err
	}
	events, err := fields.ParseSelector(refusals.FieldSelector)
	if err != nil {
		return ctrl.Options{}, err
	}
	return ctrl.Options{Scheme: scheme, Cache: cache.Options{
		DefaultTransform: migration.Trim,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:   {Label: launchers},
			&corev1.Event{}: {Field: events},
		},
	}}, nil
}
