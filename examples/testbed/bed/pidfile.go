package bed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An identity tells a process from others, also from a later one with its number.
type identity struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // clock ticks after the machine, see proc(5)
	Boot    string `json:"boot"`    // which start of the machine
}

// identify returns the identity of a running process. The error is fs.ErrNotExist if
// there is none, or it has ended and only its parent does not know yet.
func identify(pid int) (identity, error) {
	if pid <= 1 {
		return identity{}, fs.ErrNotExist // none that may be ended
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if errors.Is(err, syscall.ESRCH) {
			err = fs.ErrNotExist
		}
		return identity{}, err
	}
	// The second field is the name in brackets, and may have anything in it.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest) // from the third on
	if len(fields) < 20 {
		return identity{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields)+2)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return identity{}, fs.ErrNotExist
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return identity{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, err
	}
	return identity{PID: pid, Started: started, Boot: strings.TrimSpace(string(boot))}, nil
}

// running tells whether the process still runs.
func (i identity) running() bool {
	now, err := identify(i.PID)
	return err == nil && now == i
}

// end sends the process a signal, if it still runs, and waits for its end. If that
// takes longer than patience, it kills it.
func (i identity) end(signal syscall.Signal, patience time.Duration) error {
	for deadline := time.Now().Add(patience); i.running(); {
		if err := syscall.Kill(i.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending process %d: %w", i.PID, err)
		}
		for i.running() && (signal == syscall.SIGKILL || time.Now().Before(deadline)) {
			time.Sleep(5 * time.Millisecond)
		}
		signal = syscall.SIGKILL
	}
	return nil
}

// writePIDFile notes in a bed's folder that a process was started.
func writePIDFile(dir, name string, id identity) error {
	content, err := json.Marshal(id)
	if err != nil {
		return err
	}
	path := pidFile(dir, name)
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readPIDFile returns the process that was noted under name. The error is
// fs.ErrNotExist if none was.
func readPIDFile(dir, name string) (identity, error) {
	content, err := os.ReadFile(pidFile(dir, name))
	if err != nil {
		return identity{}, err
	}
	var id identity
	if err := json.Unmarshal(content, &id); err != nil {
		return identity{}, fmt.Errorf("%s: %w", pidFile(dir, name), err)
	}
	return id, nil
}

func pidFile(dir, name string) string {
	return filepath.Join(dir, name+".pid")
}
