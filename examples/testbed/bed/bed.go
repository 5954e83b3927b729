// Package bed runs a real control plane with a real KubeVirt controller, with no
// container runtime: etcd, kube-apiserver, kube-controller-manager and virt-controller,
// each a process of its own on a loopback address of its own. Nodes, kubelets and virt-handlers
// are simulated by package sim. Several beds can run side by side. It needs Linux and Go.
//
// virt-operator and virt-api are not there. What virt-api's webhook adds to a
// VirtualMachineInstanceMigration is added by a MutatingAdmissionPolicy; what it adds to a
// VirtualMachineInstance, package virt adds. Nothing that it would refuse is refused.
package bed

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// A Bed is a running control plane. It is safe for concurrent use.
type Bed struct {
	dir       string
	remove    bool // dir, when the bed stops
	log       io.Writer
	started   time.Time
	versions  Versions
	quotaSync time.Duration     // Config.QuotaSync
	host      string            // the address at which everything listens
	binaries  map[string]string // the paths of the programs
	authority *authority
	config    *rest.Config
	client    kubernetes.Interface
	objects   dynamic.Interface
	processes map[Component]*process
	simulator *sim.Simulator
	locks     [2]*os.File // of claim

	stopSimulator context.CancelFunc
	simulated     sync.WaitGroup
}

// Start builds what is missing and starts a bed, which ends with t, and at the latest with this
// process, however that ends. Unless it fails, a fresh folder is removed.
func Start(t try.T, config Config) *Bed {
	t.Helper()
	b := &Bed{log: config.Log, quotaSync: config.QuotaSync, processes: map[Component]*process{}, stopSimulator: func() {}}
	if b.log == nil {
		b.log = io.Discard
	}
	b.versions = try.Must(config.versions())(t)
	b.binaries = map[string]string{}
	for _, name := range []string{controlPlane, kubevirt} {
		b.binaries[name] = b.versions.program(name).binary(t, b.log)
	}
	b.started = time.Now()
	if config.Dir == "" {
		b.dir = try.Must(NewFolder("bed-"))(t)
	} else {
		b.dir = try.Must(MakeFolder(config.Dir))(t)
	}
	t.Cleanup(func() { require.NoError(t, b.Stop()) })
	b.start(t, config)
	b.remove = config.Dir == "" // else the logs say why
	return b
}

func (b *Bed) start(t try.T, config Config) {
	var err error
	b.locks[0], b.locks[1], err = claim(t.Context(), b.dir)
	require.NoError(t, err)
	servers := append([]Component{Etcd}, try.Must(config.apiServers())(t)...)
	controllers := []Component{ControllerManager, VirtController}
	b.host = newHost()
	b.writeFiles(t)
	for _, component := range slices.Concat(servers, controllers) {
		b.processes[component] = b.newProcess(t, component)
	}
	for _, component := range servers {
		require.NoError(t, b.processes[component].start())
		b.ready(t, component)
		b.say("%s is ready", component)
	}
	// Before the controllers, so that they know KubeVirt's kinds from the start.
	b.install(t)
	b.say("KubeVirt is installed")
	if config.Nodes >= 0 {
		b.simulate(t, config)
	}
	for _, component := range controllers {
		require.NoError(t, b.processes[component].start())
	}
	for _, component := range controllers {
		b.ready(t, component)
		b.say("%s is ready", component)
	}
	b.awaitServiceAccount(t, "default")
}

func (b *Bed) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%5.1f s  %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

// simulate starts what plays the nodes.
func (b *Bed) simulate(t try.T, config Config) {
	var names []string
	for i := range cmp.Or(config.Nodes, 3) {
		names = append(names, fmt.Sprintf("node%02d", i+1))
	}
	user := b.User(t, "headroom-testbed-simulator", "system:masters")
	client, objects := try.Must(kubernetes.NewForConfig(user))(t), try.Must(dynamic.NewForConfig(user))(t)
	b.simulator = sim.New(client, objects, sim.Config{Nodes: names, Step: config.Step, Log: b.log})
	ctx, cancel := context.WithCancel(context.Background())
	b.stopSimulator = cancel
	b.simulated.Go(func() { b.simulator.Run(ctx) })
}

// Stop ends the bed before t ends. It removes its folder if Start has made a fresh one.
func (b *Bed) Stop() error {
	b.stopSimulator()
	b.simulated.Wait()
	for _, component := range slices.Backward(b.Components()) {
		b.processes[component].kill()
	}
	for _, lock := range b.locks {
		_ = lock.Close() // nil, or closed already
	}
	if b.remove {
		return os.RemoveAll(b.dir)
	}
	return nil
}

// Kill ends a component with SIGKILL, and waits until it is gone. It stays away until
// Restart.
func (b *Bed) Kill(t try.T, component Component) {
	t.Helper()
	require.Contains(t, b.processes, component)
	b.processes[component].kill()
}

// Restart starts a component that was killed, with all that it had stored, and waits
// until it serves. If it runs, Restart only waits.
func (b *Bed) Restart(t try.T, component Component) {
	t.Helper()
	require.Contains(t, b.processes, component)
	require.NoError(t, b.processes[component].start())
	b.ready(t, component)
	if component == APIServer { // it is ready before it knows the kinds of KubeVirt
		b.awaitPolicy(t)
	}
}

// Versions returns what the bed was built from.
func (b *Bed) Versions() Versions { return b.versions }

// Config returns how an administrator reaches the API server. It is the caller's own.
func (b *Bed) Config() *rest.Config { return rest.CopyConfig(b.config) }

// Other returns how the user of config reaches the other API server; config itself if
// there is only one.
func (b *Bed) Other(config *rest.Config) *rest.Config {
	if b.processes[OtherAPIServer] == nil {
		return config
	}
	other := rest.CopyConfig(config)
	other.Host = b.url("https", OtherAPIServer)
	return other
}

// Kubeconfig returns the path of the administrator's kubeconfig.
func (b *Bed) Kubeconfig() string { return b.path(AdminKubeconfig) }

// Dir returns the bed's folder, in which each component has a log.
func (b *Bed) Dir() string { return b.dir }

// Simulator returns what plays the nodes; nil if Config.Nodes is negative.
func (b *Bed) Simulator() *sim.Simulator { return b.simulator }
