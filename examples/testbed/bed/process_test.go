package bed

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
)

func newProcess(t *testing.T, script string) *process {
	t.Helper()
	p := &process{name: "p", dir: t.TempDir(), program: "sh", args: []string{"-c", script}, log: t.Output()}
	t.Cleanup(p.kill)
	return p
}

// requirePID returns the number of a process that runs.
func requirePID(t *testing.T, p *process) int {
	t.Helper()
	pid := try.Must(p.pid())(t)
	require.True(t, Runs(pid))
	return pid
}

func TestProcessComesBackWhenItEndsByItself(t *testing.T) {
	p := newProcess(t, "echo up; exec sleep 600")
	require.NoError(t, p.start())
	first := requirePID(t, p)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	require.Eventually(t, func() bool {
		pid, err := p.pid()
		return err == nil && pid != first && Runs(pid)
	}, time.Minute, time.Millisecond)
}

func TestProcessStaysAwayWhenItWasEnded(t *testing.T) {
	p := newProcess(t, "exec sleep 600")
	require.NoError(t, p.start())
	first := requirePID(t, p)
	p.kill()
	require.False(t, Runs(first))
	time.Sleep(2 * restartPause)
	_, err := p.pid()
	require.ErrorContains(t, err, "does not run")
	p.kill() // twice

	require.NoError(t, p.start())
	second := requirePID(t, p)
	require.NotEqual(t, first, second)
	require.NoError(t, p.start(), "twice")
	require.Equal(t, second, requirePID(t, p))
}

func TestProcessThatCannotStart(t *testing.T) {
	p := newProcess(t, "")
	p.program = filepath.Join(p.dir, "no such program")
	require.ErrorIs(t, p.start(), os.ErrNotExist)
}

func TestTail(t *testing.T) {
	p := newProcess(t, "")
	require.NoError(t, os.WriteFile(p.logFile(), []byte(strings.Repeat("x", 5000)+"end"), 0o600))
	require.True(t, strings.HasSuffix(p.tail(), "xend"))
	require.Len(t, p.tail(), 2000)
}

// driverVariable tells the test binary that it is to be a driver that has started a process of
// a bed in that folder, and ignores SIGTERM.
const driverVariable = "HEADROOM_TESTBED_TEST_DRIVER"

// newDriver starts a driver, and returns it, its folder, and the number of the process of the bed.
func newDriver(t *testing.T) (driver *exec.Cmd, dir string, child int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bed")
	require.NoError(t, os.Mkdir(dir, 0o700))
	driver = exec.Command(os.Args[0], "-test.run=^TestDriver$")
	driver.Env = append(os.Environ(), driverVariable+"="+dir)
	require.NoError(t, driver.Start())
	ended := make(chan error, 1)
	go func() { ended <- driver.Wait() }()
	t.Cleanup(func() {
		_ = driver.Process.Kill()
		require.Error(t, <-ended, "it was killed")
	})
	require.Eventually(t, func() bool {
		content, err := os.ReadFile(filepath.Join(dir, "child"))
		child, _ = strconv.Atoi(string(content))
		return err == nil && child > 0
	}, time.Minute, time.Millisecond)
	require.True(t, Runs(child))
	return driver, dir, child
}

func TestDriver(t *testing.T) {
	dir := os.Getenv(driverVariable)
	if dir == "" {
		t.Skip("it is for newDriver")
	}
	signal.Ignore(syscall.SIGTERM)
	driver, processes, err := claim(t.Context(), dir)
	require.NoError(t, err)
	defer driver.Close() // not before: garbage collection would
	p := &process{name: "p", dir: dir, program: "sleep", args: []string{"600"}, log: os.Stderr, lock: processes}
	require.NoError(t, p.start())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "child"), []byte(strconv.Itoa(requirePID(t, p))), 0o600))
	time.Sleep(10 * time.Minute)
}

func TestProcessDiesWithItsDriver(t *testing.T) {
	driver, dir, child := newDriver(t)
	pid, running, err := Running(dir)
	require.NoError(t, err)
	require.True(t, running)
	require.Equal(t, driver.Process.Pid, pid)
	require.NoError(t, driver.Process.Kill())
	require.Eventually(t, func() bool {
		_, running, err := Running(dir)
		return err == nil && !running && !Runs(child) && !locked(filepath.Join(dir, processesFile))
	}, time.Minute, time.Millisecond)
	require.NoError(t, Down(dir))
	require.NoDirExists(t, dir)
}

func TestDownKillsWhoDoesNotListen(t *testing.T) {
	driver, dir, child := newDriver(t)
	require.NoError(t, down(dir, time.Second))
	require.False(t, Runs(child))
	require.NoDirExists(t, dir)
	require.Eventually(t, func() bool { return !Runs(driver.Process.Pid) }, time.Minute, time.Millisecond)
}

func TestDownLeavesALaterProcessWithTheSameNumber(t *testing.T) {
	stranger := newProcess(t, "exec sleep 600")
	require.NoError(t, stranger.start())
	dir := filepath.Join(t.TempDir(), "bed")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, driverFile), []byte(strconv.Itoa(requirePID(t, stranger))), 0o600))
	require.NoError(t, Down(dir))
	requirePID(t, stranger)
	require.NoDirExists(t, dir)
}

func TestDownRemovesNothingThatIsNoBed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "important")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorIs(t, Down(dir), fs.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, driverFile), []byte("no number"), 0o600))
	require.ErrorContains(t, Down(dir), driverFile)
	require.FileExists(t, file)
}

func TestDownRefusesTheCallersOwn(t *testing.T) {
	dir := t.TempDir()
	driver, processes, err := claim(t.Context(), dir)
	require.NoError(t, err)
	defer driver.Close()
	defer processes.Close()
	require.ErrorContains(t, Down(dir), "use Stop")
}

func TestFolderMustBeEmpty(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err := MakeFolder(dir)
	require.ErrorContains(t, err, "not empty")
}

func TestLockIsHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lock(t.Context(), path, func() { t.Error("nobody else has it") })
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = lock(ctx, path, cancel)
	require.ErrorIs(t, err, context.Canceled)

	busy := make(chan struct{})
	ended := make(chan error)
	go func() {
		second, err := lock(t.Context(), path, func() { close(busy) })
		if err == nil {
			err = second.Close()
		}
		ended <- err
	}()
	<-busy
	require.NoError(t, first.Close())
	require.NoError(t, <-ended)
}
