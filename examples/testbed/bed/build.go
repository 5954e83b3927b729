package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// CacheVariable is the environment variable that says where built programs are kept.
// If it is not set, that is the folder headroom-testbed in os.UserCacheDir.
const CacheVariable = "HEADROOM_TESTBED_CACHE"

// testbedModule is the module that this package and its nested modules are in.
const testbedModule = "github.com/vmquota/headroom/examples/testbed"

// A program is one of the nested modules.
type program struct {
	name    string // of its folder and its binary
	what    string
	cold    string // how long a build takes on two cores that knows nothing yet
	ldflags string
	tags    string
	modfile string // the file that the requirements are in
}

// binaries are the paths of built programs.
type binaries struct {
	controlPlane, kubevirt string
}

// Build builds the programs of those versions that are not built yet, kubectl too. It
// tells log what it is doing; nil: nobody.
func Build(ctx context.Context, versions Versions, log io.Writer) error {
	if _, err := build(ctx, versions, log); err != nil {
		return err
	}
	_, err := Kubectl(ctx, versions, log)
	return err
}

// Kubectl returns the path of the kubectl of those versions, which it builds if that was
// not done yet. A bed does not need it.
func Kubectl(ctx context.Context, versions Versions, log io.Writer) (path string, err error) {
	return versions.kubectl().binary(ctx, log)
}

func build(ctx context.Context, versions Versions, log io.Writer) (binaries, error) {
	controlPlane, kubevirt := versions.programs()
	var result binaries
	var err error
	if result.controlPlane, err = controlPlane.binary(ctx, log); err != nil {
		return binaries{}, err
	}
	if result.kubevirt, err = kubevirt.binary(ctx, log); err != nil {
		return binaries{}, err
	}
	return result, nil
}

// binary returns the path of the program's binary, which it builds if that was not done
// yet.
func (p program) binary(ctx context.Context, log io.Writer) (string, error) {
	if log == nil {
		log = io.Discard
	}
	source, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Dir}}", testbedModule)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return p.build(ctx, source, cache, log)
}

func cacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for built programs, set %s: %w", CacheVariable, err)
	}
	return filepath.Join(dir, "headroom-testbed"), nil
}

// build returns the path of the program's binary, which it builds if there is none of
// the same source, versions and Go.
func (p program) build(ctx context.Context, source, cache string, log io.Writer) (string, error) {
	source = filepath.Join(source, p.name)
	sum, err := p.sum(ctx, source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, p.name+"-"+sum)
	binary := filepath.Join(dir, p.name)
	if exists(binary) {
		return binary, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"), func() {
		fmt.Fprintf(log, "somebody else is building %s, waiting for that\n", p.what)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(binary) { // somebody else has built it meanwhile
		return binary, nil
	}
	if err := p.compile(ctx, source, binary+".new", log); err != nil {
		return "", err
	}
	return binary, os.Rename(binary+".new", binary)
}

func (p program) compile(ctx context.Context, source, binary string, log io.Writer) error {
	fmt.Fprintf(log, "building %s from source: %s if nothing of it was ever built on a machine with two cores, seconds if all was\n", p.what, p.cold)
	command := exec.CommandContext(ctx, "go", "build", "-v", "-buildvcs=false",
		"-modfile="+p.modfile, "-tags="+p.tags, "-ldflags="+p.ldflags, "-o", binary, ".")
	command.Dir = source
	command.Env = append(os.Environ(), "GOWORK=off", "PWD="+source)
	output, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	made := &progress{title: "building " + p.what, start: time.Now()}
	done, shown := make(chan struct{}), make(chan struct{})
	go func() {
		made.show(log, done)
		close(shown)
	}()
	made.read(output)
	err = command.Wait()
	close(done)
	<-shown
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", p.what, err, made.errors())
	}
	used := command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	fmt.Fprintf(log, "%s, %d s of CPU time\n", made.line(), int(used.Seconds()))
	return nil
}

// sum tells builds apart: by the module's files, the versions, Go and the platform.
func (p program) sum(ctx context.Context, source string) (string, error) {
	environment, err := goOutput(ctx, source, "env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED")
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s\n%s\n%s\n%s\n", environment, p.ldflags, p.tags, p.modfile)
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || p.requiresOther(source, path) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(hash, "%s %d\n%s\n", relative, len(content), content)
		return nil
	})
	return hex.EncodeToString(hash.Sum(nil))[:16], err
}

// requiresOther tells whether a file holds the requirements of other versions.
func (p program) requiresOther(source, path string) bool {
	dir, file := filepath.Split(path)
	extension := filepath.Ext(file)
	return filepath.Clean(dir) == filepath.Clean(source) && (extension == ".mod" || extension == ".sum") &&
		strings.TrimSuffix(file, extension) != strings.TrimSuffix(p.modfile, ".mod")
}

// goOutput returns what the go command prints; dir is where it runs.
func goOutput(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off")
	output, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(output)), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits until nobody else holds the lock that path names, and calls busy if it has
// to wait. The lock is released also if the process dies.
func lock(ctx context.Context, path string, busy func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
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
