package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"k8s.io/client-go/rest"
)

// A Process is a running [Program].
type Process struct {
	command *exec.Cmd
	input   io.Closer
	ready   chan struct{}
	ended   chan struct{}

	mu    sync.Mutex
	lines []string
}

// Start starts a program that reaches the API server as config says, and calls itself
// agent there. What it logs goes to log, too; nil: nowhere else. It ends with this
// process at the latest.
func Start(program Program, config *rest.Config, agent string, log io.Writer) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(settings{
		Host: config.Host, CA: config.CAData, Cert: config.CertData, Key: config.KeyData, Token: config.BearerToken, Agent: agent,
	})
	if err != nil {
		return nil, err
	}
	p := &Process{command: exec.Command(self), ready: make(chan struct{}), ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), programVariable+"="+string(program))
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's ^C is for us
	input, err := p.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.input = input
	output, err := p.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go p.read(output, log)
	if _, err := input.Write(append(encoded, '\n')); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", program, err), p.Kill())
	}
	return p, nil
}

// read keeps what the process logs, until it has ended.
func (p *Process) read(output io.Reader, log io.Writer) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "ready" {
			close(p.ready)
			continue
		}
		if log != nil {
			fmt.Fprintln(log, line)
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		p.mu.Unlock()
	}
	_ = p.command.Wait() // it was killed, as a rule
	close(p.ended)
}

// Ready is closed when the caches of the process are synced and it works.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Ended is closed when the process is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Log returns what the process has logged so far, line by line.
func (p *Process) Log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// Kill ends the process with SIGKILL, in the middle of whatever it is doing, and waits
// until it is gone.
func (p *Process) Kill() error {
	err := p.command.Process.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.ended
	return errors.Join(err, ignoreClosed(p.input.Close()))
}

// Stop lets the process end by itself, and waits for it.
func (p *Process) Stop() error {
	err := ignoreClosed(p.input.Close())
	<-p.ended
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
