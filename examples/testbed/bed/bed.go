package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/testbed/sim"
)

// A Bed is a running control plane. It is safe for concurrent use.
type Bed struct {
	dir       string
	remove    bool // dir, when the bed stops
	log       io.Writer
	started   time.Time
	versions  Versions
	quotaSync time.Duration // Config.QuotaSync
	binaries  binaries
	addresses addresses
	authority *authority
	config    *rest.Config
	client    kubernetes.Interface
	processes map[Component]*process
	simulator *sim.Simulator

	stopSimulator context.CancelFunc
	simulated     sync.WaitGroup
}

// Start builds what is missing and starts a bed. It ends with the process that started
// it, however that ends; but only Stop removes its folder. When ctx is done, Start
// gives up; a bed that has been started does not mind.
func Start(ctx context.Context, config Config) (*Bed, error) {
	b := &Bed{log: config.Log, quotaSync: config.QuotaSync, processes: map[Component]*process{}, stopSimulator: func() {}}
	if b.log == nil {
		b.log = io.Discard
	}
	var err error
	if b.versions, err = config.versions(); err != nil {
		return nil, err
	}
	if b.binaries, err = build(ctx, b.versions, b.log); err != nil {
		return nil, err
	}
	b.started = time.Now()
	if config.Dir == "" {
		b.dir, err = NewFolder("bed-")
	} else {
		b.dir, err = MakeFolder(config.Dir)
	}
	if err != nil {
		return nil, err
	}
	b.remove = config.Dir == "" && !config.Keep
	if err := b.start(ctx, config); err != nil {
		b.remove = false // the logs say why
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *Bed) start(ctx context.Context, config Config) error {
	servers, err := config.apiServers()
	if err != nil {
		return err
	}
	if b.addresses, err = newAddresses(); err != nil {
		return err
	}
	if err := b.writeFiles(); err != nil {
		return err
	}
	for _, component := range slices.Concat([]Component{Etcd}, servers, []Component{ControllerManager, VirtController}) {
		program, args := b.arguments(component)
		b.processes[component] = &process{name: component, dir: b.dir, program: program, args: args, log: b.log}
	}
	for _, component := range slices.Concat([]Component{Etcd}, servers) {
		if err := b.Restart(ctx, component); err != nil {
			return err
		}
		b.say("%s is ready", component)
	}
	// Before the controllers, so that they know KubeVirt's kinds from the start.
	if err := b.install(ctx, config.KubeVirt); err != nil {
		return fmt.Errorf("installing KubeVirt: %w", err)
	}
	b.say("KubeVirt is installed")
	if config.Nodes >= 0 {
		if err := b.simulate(config); err != nil {
			return err
		}
	}
	for _, component := range []Component{ControllerManager, VirtController} {
		if err := b.processes[component].start(); err != nil {
			return err
		}
	}
	for _, component := range []Component{ControllerManager, VirtController} {
		if err := b.ready(ctx, component); err != nil {
			return err
		}
		b.say("%s is ready", component)
	}
	return b.awaitServiceAccount(ctx, "default")
}

func (b *Bed) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%5.1f s  %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

// simulate starts what plays the nodes.
func (b *Bed) simulate(config Config) error {
	user, err := b.User("headroom-testbed-simulator", "system:masters")
	if err != nil {
		return err
	}
	names := make([]string, config.Nodes)
	if config.Nodes == 0 {
		names = make([]string, 3)
	}
	for i := range names {
		names[i] = fmt.Sprintf("node%02d", i+1)
	}
	b.simulator, err = sim.New(user, sim.Config{Nodes: names, Step: config.Step, Log: b.log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stopSimulator = cancel
	b.simulated.Go(func() { b.simulator.Run(ctx) })
	return nil
}

// Stop ends the bed. It removes its folder if Start has made a fresh one.
func (b *Bed) Stop() error {
	b.stopSimulator()
	b.simulated.Wait()
	var failed []error
	for _, component := range slices.Backward(b.Components()) {
		failed = append(failed, b.processes[component].kill())
	}
	if b.remove {
		failed = append(failed, os.RemoveAll(b.dir))
	} else {
		failed = append(failed, writePIDFile(b.dir, driver, identity{})) // for Down: nobody is to be ended
	}
	return errors.Join(failed...)
}

// Kill ends a component with SIGKILL, and waits until it is gone. It stays away until
// Restart.
func (b *Bed) Kill(component Component) error {
	process := b.processes[component]
	if process == nil {
		return fmt.Errorf("no component %q", component)
	}
	return process.kill()
}

// Restart starts a component that was killed, with all that it had stored, and waits
// until it serves. If it runs, Restart only waits.
func (b *Bed) Restart(ctx context.Context, component Component) error {
	process := b.processes[component]
	if process == nil {
		return fmt.Errorf("no component %q", component)
	}
	if err := process.start(); err != nil {
		return err
	}
	return b.ready(ctx, component)
}

// Versions returns what the bed was built from.
func (b *Bed) Versions() Versions {
	return b.versions
}

// Config returns how an administrator reaches the API server. It is the caller's own.
func (b *Bed) Config() *rest.Config {
	return rest.CopyConfig(b.config)
}

// Other returns how the user of config reaches the other API server; config itself if
// there is only one.
func (b *Bed) Other(config *rest.Config) *rest.Config {
	if b.processes[OtherAPIServer] == nil {
		return config
	}
	other := rest.CopyConfig(config)
	other.Host = b.addresses.url("https", b.addresses.otherAPI)
	return other
}

// Kubeconfig returns the path of the administrator's kubeconfig.
func (b *Bed) Kubeconfig() string {
	return b.path(AdminKubeconfig)
}

// Dir returns the bed's folder, in which each component has a log.
func (b *Bed) Dir() string {
	return b.dir
}

// Simulator returns what plays the nodes; nil if Config.Nodes is negative.
func (b *Bed) Simulator() *sim.Simulator {
	return b.simulator
}
