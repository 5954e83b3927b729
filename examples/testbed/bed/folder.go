package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

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
