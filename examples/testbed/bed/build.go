package bed

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
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

// The programs.
const (
	controlPlane = "controlplane"
	kubevirt     = "kubevirt"
	kubectl      = "kubectl"
)

// Build builds the programs of those versions that are not built yet, kubectl too. It
// tells log what it is doing.
func Build(t try.T, versions Versions, log io.Writer) {
	for _, name := range []string{controlPlane, kubevirt, kubectl} {
		versions.program(name).binary(t, log)
	}
}

// Kubectl returns the path of the kubectl of those versions, which it builds if that was
// not done yet. A bed does not need it.
func Kubectl(t try.T, versions Versions, log io.Writer) (path string) {
	return versions.program(kubectl).binary(t, log)
}

// binary returns the path of the program's binary, which it builds if there is none of
// the same source, versions and Go.
func (p program) binary(t try.T, log io.Writer) string {
	t.Helper()
	source := filepath.Join(goOutput(t, "", "list", "-m", "-f", "{{.Dir}}", testbedModule), p.name)
	cache := os.Getenv(CacheVariable)
	if cache == "" {
		cache = filepath.Join(try.Must(os.UserCacheDir())(t), "headroom-testbed")
	}
	dir := filepath.Join(try.Must(filepath.Abs(cache))(t), p.name+"-"+p.sum(t, source))
	binary := filepath.Join(dir, p.name)
	if exists(binary) {
		return binary
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	locked := try.Must(lock(t.Context(), filepath.Join(dir, "lock"), func() {
		fmt.Fprintf(log, "somebody else is building %s, waiting for that\n", p.what)
	}))(t)
	defer locked.Close()
	if !exists(binary) { // nobody else has built it meanwhile
		p.compile(t, source, binary+".new", log)
		require.NoError(t, os.Rename(binary+".new", binary))
	}
	return binary
}

func (p program) compile(t try.T, source, binary string, log io.Writer) {
	fmt.Fprintf(log, "building %s from source: %s if nothing of it was ever built on a machine with two cores, seconds if all was\n", p.what, p.cold)
	command := exec.CommandContext(t.Context(), "go", "build", "-v", "-buildvcs=false",
		"-modfile="+p.modfile, "-tags="+p.tags, "-ldflags="+p.ldflags, "-o", binary, ".")
	command.Dir = source
	command.Env = append(os.Environ(), "GOWORK=off", "PWD="+source)
	output := try.Must(command.StderrPipe())(t)
	require.NoError(t, command.Start())
	errors := follow(output, log, "building "+p.what)
	require.NoError(t, command.Wait(), "building %s\n%s", p.what, strings.Join(errors, "\n"))
	used := command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	fmt.Fprintf(log, "%d s of CPU time\n", int(used.Seconds()))
}

// follow reads what go build -v says, and tells log every half minute, and at the end, how far it is.
// It returns the lines that are no progress.
func follow(output io.Reader, log io.Writer, title string) (other []string) {
	modules, packages, start, told := 0, 0, time.Now(), time.Time{}
	tell := func() {
		told = time.Now()
		fmt.Fprintf(log, "%s: %d s, %d modules downloaded, %d packages compiled\n", title, int(time.Since(start).Seconds()), modules, packages)
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "go: downloading "):
			modules++
		case strings.ContainsAny(line, " :"):
			other = append(other, line)
		default:
			packages++
		}
		if time.Since(told) > 30*time.Second {
			tell()
		}
	}
	tell()
	return other
}

// sum tells builds apart: by the module's files, the versions, Go and the platform.
func (p program) sum(t try.T, source string) string {
	hash := sha256.New()
	environment := goOutput(t, source, "env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED")
	fmt.Fprintf(hash, "%s\n%s\n%s\n%s\n", environment, p.ldflags, p.tags, p.modfile)
	require.NoError(t, filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, source+"/")
		requires := !strings.Contains(name, "/") && slices.Contains([]string{".mod", ".sum"}, filepath.Ext(name))
		if err != nil || !entry.Type().IsRegular() || requires && !strings.HasPrefix(name, strings.TrimSuffix(p.modfile, "mod")) {
			return err // or it holds the requirements of other versions
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(hash, "/%s %d\n%s\n", name, len(content), content)
		return err
	}))
	return hex.EncodeToString(hash.Sum(nil))[:16]
}

// goOutput returns what the go command prints; dir is where it runs.
func goOutput(t try.T, dir string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off")
	var said strings.Builder
	command.Stderr = &said
	output, err := command.Output()
	require.NoError(t, err, "go %s\n%s", strings.Join(args, " "), &said)
	return strings.TrimSpace(string(output))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
