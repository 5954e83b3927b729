package bed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A process is one of a bed's programs, started again whenever it ends by itself, as a
// kubelet would do.
type process struct {
	name    Component
	dir     string
	program string
	args    []string
	log     io.Writer

	mu      sync.Mutex
	wanted  bool
	current *run
}

// A run is one life of a process.
type run struct {
	id    identity
	ended chan struct{}
}

// restartPause is how long a process that ended by itself stays down.
const restartPause = 500 * time.Millisecond

// start starts the process, unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	if p.current != nil {
		return nil
	}
	return p.launch()
}

// launch starts the process, with p.mu held.
func (p *process) launch() error {
	output, err := os.OpenFile(p.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	command := exec.Command(p.program, p.args...)
	command.Dir = p.dir
	command.Stdout, command.Stderr = output, output
	// It dies with this process, but not of what a terminal sends to this one.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel means the thread that started the process, not this process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err != nil {
			return
		}
		p.gone(command.Wait())
		close(ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	id, err := identify(command.Process.Pid)
	if err != nil {
		return fmt.Errorf("%s ended at once: %w\n%s", p.name, err, p.tail())
	}
	p.current = &run{id: id, ended: ended}
	return writePIDFile(p.dir, string(p.name), id)
}

// gone is told that a run ended.
func (p *process) gone(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = nil
	if !p.wanted {
		return
	}
	fmt.Fprintf(p.log, "%s ended by itself (%v), it is started again; see %s\n", p.name, err, p.logFile())
	time.AfterFunc(restartPause, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.wanted || p.current != nil {
			return
		}
		if err := p.launch(); err != nil {
			fmt.Fprintln(p.log, err)
		}
	})
}

// kill ends the process with SIGKILL, and waits until it has gone.
func (p *process) kill() error {
	p.mu.Lock()
	p.wanted = false
	current := p.current
	p.mu.Unlock()
	if current == nil {
		return nil
	}
	err := current.id.end(syscall.SIGKILL, 0)
	if err == nil {
		<-current.ended
	}
	return err
}

// running returns an error that shows the end of the log if the process does not run.
func (p *process) running() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return errors.New(string(p.name) + " does not run:\n" + p.tail())
	}
	return nil
}

func (p *process) logFile() string {
	return filepath.Join(p.dir, string(p.name)+".log")
}

// tail returns the end of the log.
func (p *process) tail() string {
	const size = 2000
	content, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-size):])
}
