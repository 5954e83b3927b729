package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
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

	running atomic.Pointer[os.Process] // nil: it does not run
	mu      sync.Mutex
	stop    func() // kills it and waits until it has gone; nil: it was not started
}

// restartPause is how long a process that ended by itself stays down.
const restartPause = 500 * time.Millisecond

// start starts the process, unless it was started and not killed.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := p.launch(ctx)
	if err != nil {
		cancel()
		return err
	}
	gone := make(chan struct{})
	p.stop = func() {
		cancel()
		<-gone
	}
	go func() {
		defer close(gone)
		for {
			why := errors.Join(err, <-ended)
			p.running.Store(nil)
			if ctx.Err() == nil {
				fmt.Fprintf(p.log, "%s ended by itself (%v), it is started again; see %s\n", p.name, why, p.logFile())
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(restartPause):
			}
			ended, err = p.launch(ctx)
		}
	}()
	return nil
}

// launch starts the process, which is killed when ctx is done.
func (p *process) launch(ctx context.Context) (ended <-chan error, err error) {
	output, err := os.OpenFile(p.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		none := make(chan error)
		close(none)
		return none, err
	}
	defer output.Close()
	command := exec.CommandContext(ctx, p.program, p.args...)
	command.Dir = p.dir
	command.Stdout, command.Stderr = output, output
	if p.lock != nil {
		command.ExtraFiles = []*os.File{p.lock}
	}
	if ended, err = Launch(command); err != nil {
		return ended, fmt.Errorf("%s: %w", p.name, err)
	}
	p.running.Store(command.Process)
	return ended, nil
}

// kill ends the process with SIGKILL, and waits until it has gone.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// pid returns the number of the process, or an error that shows the end of the log if it does
// not run.
func (p *process) pid() (int, error) {
	running := p.running.Load()
	if running == nil {
		return 0, fmt.Errorf("%s does not run:\n%s", p.name, p.tail())
	}
	return running.Pid, nil
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
