package proof

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// system is the namespace of the service accounts.
const system = "harvester-system"

// asApplied is the service account of rbac.yaml.
const asApplied = "harvester-headroom"

// A program is the example, running as a service account.
type program struct {
	user string // as the API server calls it
	stop func()

	mu  sync.Mutex
	log []byte
}

// startProgram starts the program, as a service account of that name with the rights of
// rbac.yaml. It ends with the test.
func startProgram(t *testing.T, account string) *program {
	t.Helper()
	grant(t, account)
	return start(t, binary, system, account)
}

// start starts the program of path as a service account. It ends with the test, or when stop
// is called.
func start(t *testing.T, path, namespace, account string, flags ...string) *program {
	t.Helper()
	config, err := shared.ServiceAccount(t.Context(), namespace, account)
	require.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, writeKubeconfig(kubeconfig, config))

	p := &program{user: "system:serviceaccount:" + namespace + ":" + account}
	cmd := exec.Command(path, append([]string{"--kubeconfig", kubeconfig}, flags...)...)
	cmd.Env = append(os.Environ(), "POD_NAME=proof", "POD_NAMESPACE="+namespace)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes at the end of the thread
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	require.NoError(t, <-started)
	p.stop = sync.OnceFunc(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		require.NoError(t, <-ended)
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Log(p.logged())
		}
	})
	return p
}

// Write takes what the program logs.
func (p *program) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, text...)
	return len(text), nil
}

func (p *program) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.log)
}

func writeKubeconfig(path string, config *rest.Config) error {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["bed"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos["account"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	kubeconfig.Contexts["bed"] = &clientcmdapi.Context{Cluster: "bed", AuthInfo: "account"}
	kubeconfig.CurrentContext = "bed"
	return clientcmd.WriteToFile(*kubeconfig, path)
}

// grant applies rbac.yaml, as it is but for the name of all that is in it.
func grant(t *testing.T, account string) {
	t.Helper()
	file, err := os.ReadFile("../rbac.yaml")
	require.NoError(t, err)
	said, err := kubectl(t.Context(), strings.ReplaceAll(string(file), asApplied, account), "apply", "-f", "-")
	require.NoError(t, err, said)
	require.Equal(t, 3, strings.Count(said, " created\n"), said)
}

// kubectl runs kubectl as an administrator, and returns what it prints.
func kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	path, err := bed.Kubectl(ctx, shared.Versions(), os.Stderr)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--kubeconfig", shared.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	said, err := cmd.CombinedOutput()
	return string(said), err
}
