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
	"strconv"
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

// Names of files in a bed's folder.
const (
	DriverLog       = "driver.log"       // for the process that starts the bed; the bed does not write it
	AdminKubeconfig = "admin.kubeconfig" // how an administrator reaches the API server
	driverFile      = "driver.pid"       // has the number of the process that drives the bed, which holds a lock on it
	processesFile   = "processes.lock"   // is locked as long as any process of the bed runs
)

// folders returns the folder that the folders of beds are in.
func folders() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("headroom-testbed-%d", os.Getuid()))
}

// NewFolder makes a fresh folder for a bed, whose name begins with prefix.
func NewFolder(prefix string) (string, error) {
	if err := os.MkdirAll(folders(), 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(folders(), prefix)
}

// MakeFolder makes the folder dir for a bed, unless it is there already, and returns its
// absolute path. It must have nothing in it but a DriverLog.
func MakeFolder(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if entry.Name() != DriverLog {
			return "", fmt.Errorf("%s is not empty", dir)
		}
	}
	return dir, nil
}

// Folders returns the folders of beds that NewFolder made and nobody removed yet.
func Folders() ([]string, error) {
	return filepath.Glob(filepath.Join(folders(), "*"))
}

// claim notes that this process drives the bed in dir, until the files are closed.
func claim(ctx context.Context, dir string) (driver, processes *os.File, err error) {
	if driver, err = lock(ctx, filepath.Join(dir, driverFile), func() {}); err != nil {
		return nil, nil, err
	}
	_, err = fmt.Fprint(driver, os.Getpid())
	processes, failed := lock(ctx, filepath.Join(dir, processesFile), func() {})
	return driver, processes, errors.Join(err, failed)
}

// Running returns the process that started the bed in dir, and whether it still runs. The error
// is fs.ErrNotExist if no bed was ever started there.
func Running(dir string) (pid int, running bool, err error) {
	path := filepath.Join(dir, driverFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false, err
	}
	if pid, err = strconv.Atoi(string(content)); err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	return pid, locked(path), nil
}

// locked reports whether somebody holds the lock on a file.
func locked(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// Down ends the bed in dir and removes the folder, also if the process that started the bed has
// died. The error is fs.ErrNotExist if dir is no bed's folder.
func Down(dir string) error { return down(dir, 20*time.Second) }

// down sends the process that drives the bed SIGTERM, and SIGKILL after grace. It signals no
// process that was given the number of one that is gone: the lock is still held after the
// process was found. The processes of the bed end with the driver.
func down(dir string, grace time.Duration) error {
	pid, _, err := Running(dir)
	if err != nil {
		return fmt.Errorf("%s is not the folder of a test bed: %w", dir, err)
	}
	if pid == os.Getpid() {
		return errors.New("a process cannot take its own bed down, use Stop")
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		driver, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		if locked(filepath.Join(dir, driverFile)) {
			if err := driver.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("ending process %d: %w", pid, err)
			}
		}
		for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if !locked(filepath.Join(dir, driverFile)) && !locked(filepath.Join(dir, processesFile)) {
				return os.RemoveAll(dir)
			}
		}
	}
	return fmt.Errorf("something of the test bed in %s does not end", dir)
}

// lock waits until nobody else holds the lock on the file that path names, and calls busy if it
// has to wait. The lock is released when the file is closed, and when the process ends.
func lock(ctx context.Context, path string, busy func()) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
		}
		if !waited {
			busy()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), file.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
