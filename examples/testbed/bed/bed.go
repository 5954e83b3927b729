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
	"strconv"
	"strings"
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

// Config says what a bed is like. The zero value is a bed with three nodes.
type Config struct {
	// Dir is where the bed keeps its data, logs and credentials. It is created, and has
	// to be empty if it exists. Empty: a fresh folder, which Stop removes.
	Dir string
	// Log is told what is being done. Nil: nobody is.
	Log io.Writer

	// Versions are what is built. The zero value: those that VersionsVariable names.
	Versions Versions

	// APIServers is one, or two on the same etcd. Everybody reaches the first but whoever
	// has a client of [Bed.Other]. Zero: as APIServersVariable says, or one.
	APIServers int

	// Nodes is how many nodes are simulated, named node01 and so on. Zero: three.
	// Negative: nothing is simulated, no pod ever starts.
	Nodes int
	// Step is how long each step takes that is simulated: to bind a pod, to start it,
	// to hand over a virtual machine. Zero: 100 ms.
	Step time.Duration
	// QuotaSync is how often kube-controller-manager recounts every quota: its flag
	// --resource-quota-sync-period. Zero: Kubernetes' default of five minutes.
	QuotaSync time.Duration
}

// APIServersVariable is the environment variable that says how many API servers a bed has.
const APIServersVariable = "HEADROOM_TESTBED_APISERVERS"

// apiServers returns the components that are API servers.
func (c Config) apiServers() ([]Component, error) {
	n := strconv.Itoa(c.APIServers)
	if c.APIServers == 0 {
		n = cmp.Or(os.Getenv(APIServersVariable), "1")
	}
	switch n {
	case "1":
		return []Component{APIServer}, nil
	case "2":
		return []Component{APIServer, OtherAPIServer}, nil
	default:
		return nil, fmt.Errorf("a bed has one or two API servers, not %s", n)
	}
}

func (c Config) versions() (Versions, error) { return ChooseVersions(c.Versions.Name) }

// Versions are what a bed is built from. The modules below controlplane, kubevirt
// and kubectl require these, in a file for each Versions; a test holds them to it.
type Versions struct {
	Name       string // to choose it by
	Kubernetes string
	Etcd       string // the one that Kubernetes is built with
	KubeVirt   string
}

// The versions that a bed can be built from.
var (
	Newest = Versions{Name: "newest", Kubernetes: "v1.37.2", Etcd: "v3.7.0", KubeVirt: "v1.9.0"}
	Oldest = Versions{Name: "oldest", Kubernetes: "v1.34.4", Etcd: "v3.6.4", KubeVirt: "v1.8.2"}
)

// VersionsVariable is the environment variable that names the versions of beds whose
// Config does not say. If it is not set, these are the Newest.
const VersionsVariable = "HEADROOM_TESTBED_VERSIONS"

// ChooseVersions returns the versions with that name; an empty one is that which
// VersionsVariable says.
func ChooseVersions(name string) (Versions, error) {
	all := []Versions{Newest, Oldest}
	name = cmp.Or(name, os.Getenv(VersionsVariable), Newest.Name)
	i := slices.IndexFunc(all, func(v Versions) bool { return v.Name == name })
	if i < 0 {
		return Versions{}, fmt.Errorf("no versions are called %q; there are %s and %s", name, Newest.Name, Oldest.Name)
	}
	return all[i], nil
}

// program returns one of the nested modules, and how it is built.
func (v Versions) program(name string) program {
	p := program{name: name, ldflags: "-s -w" + versionFlags(v.Kubernetes), modfile: v.modfile()}
	switch name {
	case controlPlane:
		p.what, p.cold = "Kubernetes "+v.Kubernetes+" and etcd "+v.Etcd, "9 minutes"
	case kubectl:
		p.what, p.cold = "kubectl "+v.Kubernetes, "2 minutes"
	case kubevirt:
		p.what, p.cold, p.ldflags = "KubeVirt "+v.KubeVirt, "4 minutes", "-s -w"
		if v == Oldest {
			p.tags = "kubevirt_1_8"
		}
	}
	return p
}

// modfile returns the name of the file that a program's requirements are in.
func (v Versions) modfile() string {
	if v == Newest {
		return "go.mod"
	}
	return v.Name + ".mod"
}

// apiServerFlags returns what makes an API server of these versions serve
// MutatingAdmissionPolicies, which are on by default from Kubernetes 1.36 on.
func (v Versions) apiServerFlags() []string {
	if v == Newest {
		return nil
	}
	return []string{"--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true"}
}

// policyVersion is the version in which MutatingAdmissionPolicies are served.
func (v Versions) policyVersion() string {
	if v == Newest {
		return "v1"
	}
	return "v1beta1"
}

// versionFlags returns linker flags that make a binary of Kubernetes know its version.
func versionFlags(version string) string {
	const variable = " -X k8s.io/component-base/version."
	number := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	return variable + "gitVersion=" + version + variable + "gitMajor=" + number[0] + variable + "gitMinor=" + number[1]
}
