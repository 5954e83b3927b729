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

	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
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
