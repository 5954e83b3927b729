// Minimal is a complete controller for a cluster with KubeVirt, without leader election and
// metrics; examples/controller has these.
//
//	go run ./examples/minimal
//
// It takes the kubeconfig that $KUBECONFIG names, or the service account of its pod, which
// needs the ClusterRole in the comment of package migration.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/migration"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err == nil {
		err = migration.Run(ctx, config, migration.Options{})
	}
	if err != nil {
		klog.Fatal(err)
	}
}
