// Harvester is a controller like Harvester's for migrations and quotas, on wrangler, with
// the library in place of raising, restoring and compensating quotas.
//
//	go run . --kubeconfig ~/.kube/config
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig `file`; empty: $KUBECONFIG, ~/.kube/config, or the service account of the pod")
	cleans := flag.Bool("clean", false, "remove what a Harvester that scales quotas by itself has left, and exit; it needs update of resourcequotas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case err != nil:
	case *cleans:
		err = clean(ctx, config)
	default:
		err = run(ctx, config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
