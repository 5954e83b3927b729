// Package process is the library at work in a process of its own, as a controller that
// embeds it would have it: a migration.Controller.
//
// [Start] starts a real process, which can be killed. The program that calls it starts itself
// once more, so its main function, or TestMain, has to call [Main] first.
package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeinformers "k8s.io/client-go/informers"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A Process is a running program.
type Process struct {
	command *exec.Cmd
	ready   chan struct{}
	ended   chan struct{}
	failed  error // after ended is closed: what command.Wait returned
	killed  bool

	mu  sync.Mutex
	log strings.Builder
}

// Start starts a [Program] that reaches the API server as config says, and calls itself
// agent there. See [Launch].
func Start(program Program, config *rest.Config, agent string, log io.Writer) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	kubeconfig, err := clientcmd.Write(bed.Kubeconfig(config))
	if err != nil {
		return nil, err
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), programVariable+"="+string(program), agentVariable+"="+agent, kubeconfigVariable+"="+string(kubeconfig))
	return Launch(command, log)
}

// Launch starts a command. What it prints goes to log, too; nil: nowhere else. It ends with
// this process at the latest.
func Launch(command *exec.Cmd, log io.Writer) (*Process, error) {
	p := &Process{command: command, ready: make(chan struct{}), ended: make(chan struct{})}
	output, input := io.Pipe()
	command.Stdout, command.Stderr = input, input
	ended, err := bed.Launch(command)
	if err != nil {
		return nil, err
	}
	go func() {
		p.failed = <-ended
		_ = input.Close() // which never fails
	}()
	go p.read(output, log)
	return p, nil
}

// read keeps what the process prints, until it has ended.
func (p *Process) read(output io.Reader, log io.Writer) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == "ready" {
			close(p.ready)
			continue
		}
		if log != nil {
			fmt.Fprintln(log, lines.Text())
		}
		p.mu.Lock()
		fmt.Fprintln(&p.log, lines.Text())
		p.mu.Unlock()
	}
	close(p.ended)
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// AwaitReady waits until the caches of a [Program] are synced and it works.
func (p *Process) AwaitReady(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-p.ended:
		return errors.New("the process ended by itself: " + p.Log())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Log returns what the process has printed so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Kill ends the process with SIGKILL, in the middle of whatever it is doing, and waits
// until it is gone.
func (p *Process) Kill() error {
	p.killed = true
	return p.signal(syscall.SIGKILL)
}

// Stop lets the process end by itself, and waits for it. The error is that of a process that
// has not ended well; nil after Kill.
func (p *Process) Stop() error {
	if err := p.signal(syscall.SIGTERM); err != nil || p.killed {
		return err
	}
	return p.failed
}

func (p *Process) signal(signal syscall.Signal) error {
	if err := p.command.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}

// Namespace is the system namespace, in which the ConfigMap ledger is.
const Namespace = "headroom"

// What is in the environment of a process that is to be a [Program].
const (
	programVariable    = "HEADROOM_TESTBED_PROGRAM"
	agentVariable      = "HEADROOM_TESTBED_AGENT"
	kubeconfigVariable = "HEADROOM_TESTBED_KUBECONFIG" // not the name of a file, but what is in one
)

// A Program is what a process does.
type Program string

const (
	// Headroom is the library, with a ledger in its memory.
	Headroom Program = "headroom"
	// Recorded is the library, with a ledger in ConfigMaps, which its user needs a right to write.
	Recorded Program = "headroom-recorded"
	// Guarded is the library, and it announces its offers to the guard.
	Guarded Program = "headroom-guarded"
	// RaisePending is another policy, for comparison: it raises spec.hard for every
	// migration that exists, and lowers it when the migration has succeeded or failed.
	// Its user needs update of resourcequotas, which the library never has.
	RaisePending Program = "raise-pending"
)

// Main does nothing, unless this process was started by [Start]. Then it is the Program,
// and does not return.
func Main() {
	program := Program(os.Getenv(programVariable))
	if program == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := program.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "process:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run runs the program until ctx is done.
func (p Program) run(ctx context.Context) error {
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(os.Getenv(kubeconfigVariable)))
	if err != nil {
		return err
	}
	config.UserAgent, config.QPS = os.Getenv(agentVariable), -1
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	if p == RaisePending {
		return runRaisePending(ctx, clients)
	}
	options := migration.Options{Guard: p == Guarded}
	var record *configmap.Ledger
	if p == Recorded {
		informer := kubeinformers.NewSharedInformerFactoryWithOptions(clients.Core, 0,
			kubeinformers.WithNamespace(Namespace), kubeinformers.WithTweakListOptions(configmap.Select)).Core().V1().ConfigMaps().Informer()
		record = configmap.New(clients.Core.CoreV1(), Namespace, configmap.WithInformer(informer))
		options.Ledger = record
		go informer.RunWithContext(ctx)
	}
	controller, err := migration.NewController(clients, options)
	if err != nil {
		return err
	}
	if record != nil {
		if _, err := record.OnChange(controller.Enqueue); err != nil {
			return err
		}
	}
	if err := controller.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "ready")
	controller.Work(ctx)
	return nil
}

// raisePending is the policy of Harvester's controllers: spec.hard is raised for every
// migration from its creation until it has succeeded or failed. The policy is as good
// here as it can be: it raises all resources of all quotas by what the source pod is
// charged, is level-triggered, and knows the static limits. Those are spec.hard at the
// first sight of a quota, so the process has to be started while no VM migrates.
type raisePending struct {
	client typedcorev1.ResourceQuotasGetter
	quotas migration.List[corev1.ResourceQuota]
	caches migration.Caches

	static sync.Map // by the UID of the quota, corev1.ResourceLists that are read only
}

func (r *raisePending) reconcile(ctx context.Context, namespace string) (time.Duration, error) {
	s, err := r.caches.Snapshot(ctx, namespace)
	if err != nil {
		return 0, err
	}
	quotas, err := r.quotas(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for _, rq := range quotas {
		static, _ := r.static.LoadOrStore(rq.UID, rq.Spec.Hard)
		hard := static.(corev1.ResourceList).DeepCopy() //nolint:forcetypeassert // nothing else is stored
		for _, m := range s.Migrations {
			if m.IsFinal() {
				continue
			}
			surge := sourceOf(m, s)
			for name, limit := range hard {
				hard[name] = amounts.Plus(limit, surge[name])
			}
		}
		if quota.Equal(hard, rq.Spec.Hard) {
			continue
		}
		raised := rq.DeepCopy()
		raised.Spec.Hard = hard
		if _, err := r.client.ResourceQuotas(namespace).Update(ctx, raised, metav1.UpdateOptions{}); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// sourceOf returns what the pod is charged that m migrates from.
func sourceOf(m *kubevirtv1.VirtualMachineInstanceMigration, s migration.Snapshot) corev1.ResourceList {
	for _, vmi := range s.VMIs {
		for _, pod := range s.Pods {
			if vmi.Name == m.Spec.VMIName && pod.Labels[kubevirtv1.CreatedByLabel] == string(vmi.UID) && pod.Spec.NodeName == vmi.Status.NodeName {
				if footprint := quota.Footprint(pod); len(footprint) > 1 {
					return footprint
				}
			}
		}
	}
	return nil
}

// runRaisePending runs the policy [RaisePending] on informers of its own.
func runRaisePending(ctx context.Context, clients migration.Clients) error {
	core := kubeinformers.NewSharedInformerFactory(clients.Core, 0).Core().V1()
	quotas, pods := core.ResourceQuotas().Informer(), core.Pods().Informer()
	vmis, vmims := virt.Informer(clients.KubeVirt, virt.Instances), virt.Informer(clients.KubeVirt, virt.Migrations)
	policy := &raisePending{
		client: clients.Core.CoreV1(),
		quotas: migration.FromIndexer[corev1.ResourceQuota](quotas.GetIndexer()),
		caches: migration.Caches{
			Migrations: migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](vmims.GetIndexer()),
			VMIs:       migration.FromIndexer[kubevirtv1.VirtualMachineInstance](vmis.GetIndexer()),
			Pods:       migration.FromIndexer[corev1.Pod](pods.GetIndexer()),
		},
	}
	l, err := loop.New(loop.Config{Reconcile: policy.reconcile, Urgent: migration.InProgress})
	if err != nil {
		return err
	}
	if err := virt.Watch(ctx, l.Handler(migration.NamespaceOf), quotas, pods, vmis, vmims); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "ready")
	l.Run(ctx)
	return nil
}
