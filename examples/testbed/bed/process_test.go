package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newProcess(t *testing.T, script string) *process {
	t.Helper()
	p := &process{name: "p", dir: t.TempDir(), program: "sh", args: []string{"-c", script}, log: t.Output()}
	t.Cleanup(func() { require.NoError(t, p.kill()) })
	return p
}

func (p *process) identity() identity {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return identity{}
	}
	return p.current.id
}

func TestProcessComesBackWhenItEndsByItself(t *testing.T) {
	p := newProcess(t, "echo up; exec sleep 600")
	require.NoError(t, p.start())
	first := p.identity()
	noted, err := readPIDFile(p.dir, "p")
	require.NoError(t, err)
	require.Equal(t, first, noted)

	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	require.Eventually(t, func() bool { return p.identity() != first && p.identity().running() }, time.Minute, time.Millisecond)
	noted, err = readPIDFile(p.dir, "p")
	require.NoError(t, err)
	require.Equal(t, p.identity(), noted)
}

func TestProcessStaysAwayWhenItWasEnded(t *testing.T) {
	p := newProcess(t, "exec sleep 600")
	require.NoError(t, p.start())
	first := p.identity()
	require.NoError(t, p.kill())
	require.False(t, first.running())
	require.ErrorContains(t, p.running(), "does not run")
	time.Sleep(2 * restartPause)
	require.Zero(t, p.identity())
	require.NoError(t, p.kill(), "twice")

	require.NoError(t, p.start())
	second := p.identity()
	require.NotEqual(t, first, second)
	require.NoError(t, p.start(), "twice")
	require.Equal(t, second, p.identity())
}

func TestProcessThatCannotStart(t *testing.T) {
	p := newProcess(t, "")
	p.program = filepath.Join(p.dir, "no such program")
	require.ErrorIs(t, p.start(), os.ErrNotExist)
}

// driverVariable tells the test binary that it is to be a driver that has started a
// process in that folder.
const driverVariable = "HEADROOM_TESTBED_TEST_DRIVER"

func TestProcessDiesWithItsDriver(t *testing.T) {
	if dir := os.Getenv(driverVariable); dir != "" {
		p := &process{name: "p", dir: dir, program: "sleep", args: []string{"600"}, log: os.Stderr}
		require.NoError(t, p.start())
		time.Sleep(10 * time.Minute)
	}
	dir := t.TempDir()
	command := exec.Command(os.Args[0], "-test.run=^TestProcessDiesWithItsDriver$")
	command.Env = append(os.Environ(), driverVariable+"="+dir)
	require.NoError(t, command.Start())
	var id identity
	require.Eventually(t, func() bool {
		var err error
		id, err = readPIDFile(dir, "p")
		return err == nil
	}, time.Minute, time.Millisecond)
	require.True(t, id.running())
	require.NoError(t, command.Process.Kill())
	_ = command.Wait()
	require.Eventually(t, func() bool { return !id.running() }, time.Minute, time.Millisecond)
}

func TestTail(t *testing.T) {
	p := newProcess(t, "")
	require.NoError(t, os.WriteFile(p.logFile(), []byte(strings.Repeat("x", 5000)+"end"), 0o600))
	require.True(t, strings.HasSuffix(p.tail(), "xend"))
	require.Len(t, p.tail(), 2000)
}
