package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// crashVariable tells the test binary that it is to start a bed in that folder, and to
// wait for its end.
const crashVariable = "HEADROOM_TESTBED_TEST_CRASH"

// TestCrash kills a process that drives a bed, beside another bed that must not mind.
func TestCrash(t *testing.T) {
	if dir := os.Getenv(crashVariable); dir != "" {
		_, err := Start(t.Context(), Config{Dir: dir, Log: os.Stderr})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "started"), nil, 0o600))
		time.Sleep(time.Hour)
	}
	other := sharedBed(t)
	dir := filepath.Join(t.TempDir(), "bed")
	command := exec.Command(os.Args[0], "-test.run=^TestCrash$")
	command.Env = append(os.Environ(), crashVariable+"="+dir)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	require.NoError(t, command.Start())
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(ended)
	}()
	require.Eventually(t, func() bool {
		select {
		case <-ended:
			t.Error("the driver ended by itself")
			return true
		default:
			return exists(filepath.Join(dir, "started"))
		}
	}, 2*patience, 50*time.Millisecond)
	var components []identity
	for _, component := range []Component{Etcd, APIServer, ControllerManager, VirtController} {
		id, err := readPIDFile(dir, string(component))
		require.NoError(t, err)
		require.True(t, id.running())
		components = append(components, id)
	}
	pid, running, err := Running(dir)
	require.NoError(t, err)
	require.True(t, running)
	require.Equal(t, command.Process.Pid, pid)

	require.NoError(t, command.Process.Kill())
	<-ended
	require.NoError(t, Down(dir))
	require.NoDirExists(t, dir)
	for _, id := range components {
		require.False(t, id.running())
	}

	client, err := kubernetes.NewForConfig(other.Config())
	require.NoError(t, err)
	_, err = client.CoreV1().Namespaces().Get(t.Context(), corev1.NamespaceDefault, metav1.GetOptions{})
	require.NoError(t, err, "the other bed goes on")
}

func TestStopLeavesNothing(t *testing.T) {
	first := sharedBed(t)
	b, err := Start(t.Context(), Config{Log: os.Stderr, Nodes: -1, APIServers: 2})
	require.NoError(t, err)
	require.Nil(t, b.Simulator())
	require.NotEqual(t, first.Config().Host, b.Config().Host)
	dir := b.Dir()
	require.FileExists(t, b.Kubeconfig())
	namespace, err := b.NewNamespace(t.Context(), "n-")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(first.Config())
	require.NoError(t, err)
	_, err = client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	require.Error(t, err, "beds share nothing")
	requireOther(t, b, namespace)
	var components []identity
	require.Equal(t, all, b.Components())
	for _, component := range b.Components() {
		id, err := readPIDFile(dir, string(component))
		require.NoError(t, err)
		components = append(components, id)
	}
	require.NoError(t, b.Stop())
	require.NoDirExists(t, dir)
	for _, id := range components {
		require.False(t, id.running())
	}
	require.NoError(t, b.Stop(), "twice")
}

// requireOther holds the other API server to one store and one log for both.
func requireOther(t *testing.T, b *Bed, namespace string) {
	t.Helper()
	other := b.Other(b.Config())
	require.NotEqual(t, b.Config().Host, other.Host)
	client, err := kubernetes.NewForConfig(other)
	require.NoError(t, err)
	require.NoError(t, client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}), "they share a store")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		events, err := b.Audit()
		require.NoError(c, err)
		require.True(c, slices.ContainsFunc(events, func(e AuditEvent) bool { return e.Verb == "delete" && e.Name == namespace }))
		require.True(c, slices.ContainsFunc(events, func(e AuditEvent) bool { return e.Verb == "create" && e.Name == KubeVirtNamespace }))
	}, eventually, 50*time.Millisecond)
}

func TestFolderMustBeEmpty(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err := MakeFolder(dir)
	require.ErrorContains(t, err, "not empty")
}
