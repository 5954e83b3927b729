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
	var o options
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig `file`; empty: $KUBECONFIG, ~/.kube/config, or the service account of the pod")
	flag.StringVar(&o.system, "system-namespace", "harvester-system", "the `namespace` of the ledger; it must exist")
	flag.BoolVar(&o.ledgerOnly, "ledger-only", false, "keep the ledger and write no quota: Rancher does that, with its shim")
	flag.BoolVar(&o.rollback, "rollback", false, "write Harvester's own annotations beside those of the library, for a version that somebody may roll back to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = *kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err == nil {
		err = run(ctx, config, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
