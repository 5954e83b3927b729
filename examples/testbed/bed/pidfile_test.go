package bed

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sleeper starts a process that does nothing, and ends it with the test.
func sleeper(t *testing.T) (*exec.Cmd, identity) {
	t.Helper()
	command := exec.Command("sleep", "600")
	require.NoError(t, command.Start())
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
	})
	id, err := identify(command.Process.Pid)
	require.NoError(t, err)
	return command, id
}

func TestIdentity(t *testing.T) {
	_, id := sleeper(t)
	require.True(t, id.running())
	for name, other := range map[string]identity{
		"a later process with its number": {PID: id.PID, Started: id.Started - 1, Boot: id.Boot},
		"one before the machine started":  {PID: id.PID, Started: id.Started, Boot: "other"},
		"none":                            {},
		"the first process":               {PID: 1, Started: id.Started, Boot: id.Boot},
		"a group of processes":            {PID: -id.PID, Started: id.Started, Boot: id.Boot},
	} {
		require.False(t, other.running(), name)
		require.NoError(t, other.end(syscall.SIGKILL, 0), name)
	}
	require.True(t, id.running(), "nobody ended it")
	require.NoError(t, id.end(syscall.SIGTERM, time.Minute))
	require.False(t, id.running())
}

func TestEndKillsWhoDoesNotListen(t *testing.T) {
	command := exec.Command("sh", "-c", `trap "" TERM; echo; while :; do sleep 0.1; done`)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	_, err = output.Read(make([]byte, 1)) // it has set its trap
	require.NoError(t, err)
	go func() { _ = command.Wait() }()
	id, err := identify(command.Process.Pid)
	require.NoError(t, err)
	require.NoError(t, id.end(syscall.SIGTERM, 50*time.Millisecond))
	require.False(t, id.running())
}

func TestPIDFile(t *testing.T) {
	dir := t.TempDir()
	_, err := readPIDFile(dir, "a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	want := identity{PID: 7, Started: 8, Boot: "b"}
	require.NoError(t, writePIDFile(dir, "a", want))
	got, err := readPIDFile(dir, "a")
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, os.WriteFile(pidFile(dir, "a"), []byte("7\n"), 0o600))
	_, err = readPIDFile(dir, "a")
	require.ErrorContains(t, err, "a.pid")
}

// crashed returns the folder of a bed whose driver is gone, and one of whose processes
// is not.
func crashed(t *testing.T, left identity) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bed")
	require.NoError(t, os.Mkdir(dir, 0o700))
	driverCommand, driverID := sleeper(t)
	require.NoError(t, driverCommand.Process.Kill())
	require.Eventually(t, func() bool { return !driverID.running() }, time.Minute, time.Millisecond)
	require.NoError(t, writePIDFile(dir, driver, driverID))
	require.NoError(t, writePIDFile(dir, string(Etcd), left))
	return dir
}

func TestDownEndsWhatACrashLeft(t *testing.T) {
	_, left := sleeper(t)
	dir := crashed(t, left)
	require.NoError(t, Down(dir))
	require.False(t, left.running())
	require.NoDirExists(t, dir)
}

func TestDownLeavesALaterProcessWithTheSameNumber(t *testing.T) {
	_, stranger := sleeper(t)
	noted := stranger
	noted.Started--
	dir := crashed(t, noted)
	require.NoError(t, Down(dir))
	require.True(t, stranger.running())
	require.NoDirExists(t, dir)
}

func TestDownRemovesNothingThatIsNoBed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "important")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorIs(t, Down(dir), fs.ErrNotExist)
	require.FileExists(t, file)
}

func TestDownRefusesTheCallersOwn(t *testing.T) {
	dir := t.TempDir()
	self, err := identify(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, writePIDFile(dir, driver, self))
	require.ErrorContains(t, Down(dir), "use Stop")
}
