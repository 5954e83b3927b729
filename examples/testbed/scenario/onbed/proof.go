package onbed

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// Main runs the tests of a package, which share a stage of a bed, and exits. Prepare is called
// before them, and its cleanups are after them.
func Main(tests interface{ Run() int }, prepare func(t try.T, s *Stage)) {
	flag.Parse()
	code := 1
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	err := try.Run(context.Background(), logf, func(t try.T) {
		s := NewStage(t, bed.Start(t, bed.Config{Log: os.Stderr, Step: 20 * time.Millisecond}), "", nil)
		require.NoError(t, os.Mkdir(s.Programs(), 0o700))
		prepare(t, s)
		code = tests.Run()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Programs is the folder of what [Stage.Build] builds.
func (s *Stage) Programs() string { return filepath.Join(s.Bed.Dir(), "programs") }

// Build builds a program of a module, as those who install it do.
func (s *Stage) Build(t try.T, module, program string) {
	t.Helper()
	built, err := exec.CommandContext(t.Context(), "go", "-C", module, "build", "-o", s.Programs()+string(filepath.Separator), program).CombinedOutput()
	require.NoError(t, err, "%s", built)
}

// StartAs starts a program that was built, as the pod of that name would with its service
// account, and with these flags and --kubeconfig. It ends with t, or before by its methods.
func (s *Stage) StartAs(t try.T, namespace, account, pod, program string, flags ...string) *process.Process {
	t.Helper()
	kubeconfig := filepath.Join(s.Bed.Dir(), pod+".kubeconfig")
	require.NoError(t, bed.WriteKubeconfig(kubeconfig, s.Bed.ServiceAccount(t, namespace, account)))
	command := exec.Command(filepath.Join(s.Programs(), program), append(flags, "--kubeconfig="+kubeconfig)...)
	command.Env = append(os.Environ(), "POD_NAMESPACE="+namespace, "POD_NAME="+pod)
	p := try.Must(process.Launch(command, nil))(t)
	t.Cleanup(func() {
		assert.NoError(t, p.Stop())
		if test, is := t.(interface{ Failed() bool }); is && test.Failed() {
			t.Logf("%s:\n%s", pod, p.Log())
		}
	})
	return p
}

// Shell runs a command as an administrator types it in a folder, where kubectl and the programs
// that were built are in the PATH. It returns what the command prints.
func (s *Stage) Shell(t try.T, dir, command string, env ...string) (string, error) {
	t.Helper()
	kubectl := bed.Kubectl(t, s.Bed.Versions(), os.Stderr)
	path := []string{s.Programs(), filepath.Dir(kubectl), os.Getenv("PATH")}
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", command)
	shell.Dir = dir
	shell.Env = append(os.Environ(), "KUBECONFIG="+s.Bed.Kubeconfig(), "PATH="+strings.Join(path, string(filepath.ListSeparator)))
	shell.Env = append(shell.Env, env...)
	said, err := shell.CombinedOutput()
	t.Logf("$ %s\n%s", command, said)
	return string(said), err
}

// Requests returns the writes of a user, and expects that none was forbidden, and that those of
// quotas were updates of the status. What processes have logged tells of reads.
func (s *Stage) Requests(t try.T, user string, processes ...*process.Process) (requests []bed.AuditEvent) {
	t.Helper()
	for _, e := range s.Bed.Audit(t) {
		if e.User != user {
			continue
		}
		requests = append(requests, e)
		require.NotContains(t, []int32{http.StatusForbidden, http.StatusUnauthorized}, e.Code, "%s %s %s/%s: %s", e.Verb, e.Resource, e.Namespace, e.Name, e.Message)
		if e.Resource == "resourcequotas" {
			require.Equal(t, "update status", e.Verb+" "+e.Subresource)
		}
	}
	for _, p := range processes {
		require.NotContains(t, strings.ToLower(p.Log()), "forbidden")
	}
	return requests
}
