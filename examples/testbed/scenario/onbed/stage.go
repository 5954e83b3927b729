// Package onbed plays scenarios on a real control plane, many side by side on the same.
package onbed

import (
	"bytes"
	"context"
	"embed"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// Who the processes are on a bed.
const (
	User      = "headroom-library"     // the library
	OtherUser = "other-quota-policies" // policies that write spec.hard
)

// A Stage is a running bed, with the library at work in a process of its own.
type Stage struct {
	Bed     *bed.Bed             // if it has two API servers, the library reaches the other one
	Client  kubernetes.Interface // an administrator's
	Objects dynamic.Interface    // an administrator's
	watch   *watch
}

// NewStage makes a stage of a bed, with a program at work. If it is empty, no process is
// started. What the process logs goes to log, too, if that is not nil. When t ends, the process
// ends, and the audit log is checked: see [CheckAudit]. The bed goes on.
func NewStage(t try.T, b *bed.Bed, program process.Program, log io.Writer) *Stage {
	s := &Stage{Bed: b, Client: try.Must(kubernetes.NewForConfig(b.Config()))(t), Objects: try.Must(dynamic.NewForConfig(b.Config()))(t)}
	s.watch = newWatch(t, s.Client, s.Objects)
	// As virt-operator is told, so that a hot-plug is carried out by migrating.
	s.configure(t, map[string]any{"workloadUpdateStrategy": map[string]any{"workloadUpdateMethods": []string{"LiveMigrate"}}})
	t.Cleanup(func() { require.NoError(t, CheckAudit(b.Audit(t))) })
	if program != "" {
		s.StartProgram(t, program, log)
	}
	return s
}

// StartProgram starts a process with the rights that the program needs, and waits until it
// works. It ends with t at the latest.
func (s *Stage) StartProgram(t try.T, program process.Program, log io.Writer) *process.Process {
	t.Helper()
	user, rights := User, []Right{EnforceLimits}
	switch program {
	case process.Recorded:
		rights = append(rights, WriteLedger)
	case process.RaisePending:
		user, rights = OtherUser, []Right{WriteQuotas}
	default: // it needs no more
	}
	s.Grant(t, user, rights...)
	p := s.Launch(t, program, user, user, log)
	require.NoError(t, p.AwaitReady(t.Context()))
	return p
}

// Launch starts a process as user, which calls itself agent. It ends with t at the latest.
func (s *Stage) Launch(t try.T, program process.Program, user, agent string, log io.Writer) *process.Process {
	t.Helper()
	p := try.Must(process.Start(program, s.Bed.Other(s.Bed.User(t, user)), agent, log))(t)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

// configure changes the spec of the KubeVirt object.
func (s *Stage) configure(t try.T, spec map[string]any) {
	t.Helper()
	try.Must(s.Objects.Resource(virt.KubeVirts).Namespace(bed.KubeVirtNamespace).Patch(t.Context(), "kubevirt", types.MergePatchType,
		[]byte(Spelled(map[string]any{"spec": spec})), metav1.PatchOptions{}))(t)
}

// Configure changes KubeVirt's configuration: nil is a default. It returns when
// virt-controller goes by it, which that says nowhere.
func (s *Stage) Configure(t try.T, configuration map[string]any) {
	t.Helper()
	s.configure(t, map[string]any{"configuration": configuration})
	try.Sleep(t, time.Second)
}

// Crowded are the limits of KubeVirt for many scenarios at once, which must not wait for
// each other's migrations.
var Crowded = map[string]any{"migrations": map[string]any{"parallelMigrationsPerCluster": 200, "parallelOutboundMigrationsPerNode": 200}}

// Alone are KubeVirt's own.
var Alone = map[string]any{"migrations": nil}

// AwaitEmpty waits until no pod is left of the plays before, which would count where VMs are
// spread over the nodes.
func (s *Stage) AwaitEmpty(t try.T) {
	t.Helper()
	try.Eventually(t, func(c try.T) { require.Empty(c, s.watch.pods.GetIndexer().ListKeys()) })
}

// Cluster returns a fresh namespace, whose name begins with name, and which is deleted when t ends.
func (s *Stage) Cluster(t try.T, name string) *Cluster {
	t.Helper()
	namespace := s.Bed.NewNamespace(t, name+"-")
	try.Cleanup(t, func(t try.T) {
		err := s.Client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{})
		if !apierrors.IsNotFound(err) { // by the scenario
			require.NoError(t, err)
		}
	})
	return &Cluster{T: t, stage: s, namespace: namespace}
}

// A Right is what a user of [Stage.Grant] may do beside reading: the name of a file in rights.
type Right string

// The rights.
const (
	EnforceLimits Right = "enforce-limits" // update of resourcequotas/status
	WriteLedger   Right = "write-ledger"   // everything that the ConfigMap ledger does in process.Namespace
	WriteQuotas   Right = "write-quotas"   // update of resourcequotas, which the library never has
)

//go:embed rights/*.yaml
var manifests embed.FS

// Grant gives user the rights to read what the library reads, to record events, to nudge
// migrations, and the rights named. It also creates process.Namespace. What user was granted
// before stays.
func (s *Stage) Grant(t try.T, user string, rights ...Right) {
	t.Helper()
	for _, right := range append([]Right{"read"}, rights...) {
		content := try.Must(manifests.ReadFile("rights/" + string(right) + ".yaml"))(t)
		s.Bed.Create(t, bytes.ReplaceAll(content, []byte("USER"), []byte(user)))
	}
}

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
