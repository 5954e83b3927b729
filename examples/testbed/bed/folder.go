package bed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// driver is the name under which the process that started a bed is noted.
const driver = "driver"

// Names of files in a bed's folder.
const (
	DriverLog       = "driver.log"       // for the process that starts the bed; the bed does not write it
	AdminKubeconfig = "admin.kubeconfig" // how an administrator reaches the API server
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
	dir, err := os.MkdirTemp(folders(), prefix)
	if err != nil {
		return "", err
	}
	return dir, claim(dir)
}

// claim notes that this process drives the bed in dir.
func claim(dir string) error {
	self, err := identify(os.Getpid())
	if err != nil {
		return fmt.Errorf("the test bed needs Linux: %w", err)
	}
	return writePIDFile(dir, driver, self)
}

// MakeFolder makes the folder dir for a bed, unless it is there already, and returns its
// absolute path. It must have nothing in it but what NewFolder leaves there, and a
// DriverLog.
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
		if entry.Name() != DriverLog && entry.Name() != driver+".pid" {
			return "", fmt.Errorf("%s is not empty", dir)
		}
	}
	return dir, claim(dir)
}

// Folders returns the folders of beds that NewFolder made and nobody removed yet.
func Folders() ([]string, error) {
	return filepath.Glob(filepath.Join(folders(), "*"))
}

// Running returns the process that started the bed in dir, if it still runs. The error
// is fs.ErrNotExist if no bed was ever started there.
func Running(dir string) (pid int, running bool, err error) {
	id, err := readPIDFile(dir, driver)
	return id.PID, err == nil && id.running(), err
}

// Down ends the bed in dir and removes the folder, also if the process that started the
// bed has died. It ends only processes that the bed noted there and that are still the
// same. The error is fs.ErrNotExist if dir is no bed's folder.
func Down(dir string) error {
	id, err := readPIDFile(dir, driver)
	if err != nil {
		return fmt.Errorf("%s is not the folder of a test bed: %w", dir, err)
	}
	if id.PID == os.Getpid() {
		return errors.New("a process cannot take its own bed down, use Stop")
	}
	failed := []error{id.end(syscall.SIGTERM, 20*time.Second)}
	for _, component := range all {
		id, err := readPIDFile(dir, string(component))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed = append(failed, err)
		default:
			failed = append(failed, id.end(syscall.SIGKILL, 0))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
