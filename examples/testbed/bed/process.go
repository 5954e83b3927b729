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

// Launch starts a command that ends with this process at the latest, by SIGKILL, but not of what
// a terminal sends to this process. Ended receives what command.Wait returns, and is closed.
func Launch(command *exec.Cmd) (ended <-chan error, err error) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, waited := make(chan error), make(chan error, 1)
	go func() {
		// The kernel means the thread that started the process, not this process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			waited <- command.Wait()
		}
		close(waited)
	}()
	return waited, <-started
}

// A process is one of a bed's programs, started again whenever it ends by itself, as a
// kubelet would do.
type process struct {
	name    Component
	dir     string
	program string
	args    []string
	log     io.Writer
	lock    *os.File // held as long as the process runs

	mu      sync.Mutex
	wanted  bool
	current *exec.Cmd // nil: it does not run
	gone    chan struct{}
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
	if p.lock != nil {
		command.ExtraFiles = []*os.File{p.lock}
	}
	ended, err := Launch(command)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	gone := make(chan struct{})
	p.current, p.gone = command, gone
	go func() {
		p.ended(<-ended)
		close(gone)
	}()
	return nil
}

// ended starts the process again after a pause, if nobody has ended it.
func (p *process) ended(err error) {
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
	current, gone := p.current, p.gone
	p.mu.Unlock()
	if current == nil {
		return nil
	}
	if err := current.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-gone
	return nil
}

// pid returns the number of the process, or an error that shows the end of the log if it does
// not run.
func (p *process) pid() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return 0, fmt.Errorf("%s does not run:\n%s", p.name, p.tail())
	}
	return p.current.Process.Pid, nil
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
