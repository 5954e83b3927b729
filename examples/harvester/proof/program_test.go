package proof

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// system is where the ledger and the service accounts are.
const system = "harvester-system"

// A program is the example, running as a service account.
type program struct {
	user string // as the API server calls it

	mu  sync.Mutex
	log []byte
}

// startProgram starts the program with those flags, as a service account of that name with
// the rights of rbac.yaml, but for those that revise takes out; nil: none. It ends with the
// test.
func startProgram(t *testing.T, account string, revise func(*rbacv1.ClusterRole), flags ...string) *program {
	t.Helper()
	grant(t, account, revise)
	config, err := shared.ServiceAccount(t.Context(), system, account)
	require.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, writeKubeconfig(kubeconfig, config))

	p := &program{user: "system:serviceaccount:" + system + ":" + account}
	cmd := exec.Command(binary, append(flags, "--kubeconfig", kubeconfig, "--system-namespace", system)...)
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
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		require.NoError(t, <-ended)
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

// grant creates a service account with the rights of rbac.yaml.
func grant(t *testing.T, account string, revise func(*rbacv1.ClusterRole)) {
	t.Helper()
	file, err := os.Open("../rbac.yaml")
	require.NoError(t, err)
	defer file.Close()
	var everywhere rbacv1.ClusterRole
	var ledger rbacv1.Role
	documents := yaml.NewYAMLOrJSONDecoder(file, 1024)
	require.NoError(t, documents.Decode(&everywhere))
	require.NoError(t, documents.Decode(&ledger))
	require.Equal(t, system, ledger.Namespace)
	if revise != nil {
		revise(&everywhere)
	}
	everywhere.Name, ledger.Name = account, account

	ctx, options := context.Background(), metav1.CreateOptions{}
	_, err = admin.CoreV1().ServiceAccounts(system).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, options)
	require.NoError(t, err)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: account}}
	rbac := admin.RbacV1()
	_, err = rbac.ClusterRoles().Create(ctx, &everywhere, options)
	require.NoError(t, err)
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
	}, options)
	require.NoError(t, err)
	_, err = rbac.Roles(system).Create(ctx, &ledger, options)
	require.NoError(t, err)
	_, err = rbac.RoleBindings(system).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
	}, options)
	require.NoError(t, err)
}
