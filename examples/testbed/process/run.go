package process

import (
	"context"
	"fmt"
	"io"

	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// Namespace is the system namespace, in which the ConfigMap ledger is.
const Namespace = "headroom"

// run runs a program until ctx is done.
func run(ctx context.Context, program Program, config *rest.Config, log io.Writer) error {
	switch program {
	case Headroom:
		return control(ctx, config, migration.Options{}, log)
	case Guarded:
		return control(ctx, config, migration.Options{Guard: true}, log)
	case Recorded:
		return controlRecorded(ctx, config, log)
	case RaisePending:
		return runRaisePending(ctx, config, log)
	default:
		return fmt.Errorf("no program %q", program)
	}
}

// control runs the library.
func control(ctx context.Context, config *rest.Config, options migration.Options, log io.Writer) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	controller, err := migration.NewController(clients, options)
	if err != nil {
		return err
	}
	if err := controller.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(log, "ready")
	controller.Work(ctx)
	return nil
}

// controlRecorded runs the library with a ledger in ConfigMaps.
func controlRecorded(ctx context.Context, config *rest.Config, log io.Writer) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	informer := kubeinformers.NewSharedInformerFactoryWithOptions(clients.Core, 0,
		kubeinformers.WithNamespace(Namespace), kubeinformers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
	record := configmap.New(clients.Core.CoreV1(), Namespace, configmap.WithInformer(informer))
	controller, err := migration.NewController(clients, migration.Options{Ledger: record})
	if err != nil {
		return err
	}
	if _, err := record.OnChange(controller.Enqueue); err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	if err := controller.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(log, "ready")
	controller.Work(ctx)
	return nil
}
