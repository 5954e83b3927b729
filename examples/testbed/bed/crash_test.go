package bed_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// crashVariable tells the test binary that it is to start a bed in that folder, and to
// wait for its end.
const crashVariable = "HEADROOM_TESTBED_TEST_CRASH"

// TestCrash kills a process that drives a bed, beside another bed that must not mind.
func TestCrash(t *testing.T) {
	if dir := os.Getenv(crashVariable); dir != "" {
		b := bed.Start(t, bed.Config{Dir: dir, Log: os.Stderr})
		require.NoError(t, os.WriteFile(filepath.Join(dir, "started"), []byte(onbed.Spelled(pidsOf(b))), 0o600))
		time.Sleep(time.Hour)
	}
	other := shared(t)
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
	var pids []int
	try.Eventually(t, func(c try.T) {
		content := try.Must(os.ReadFile(filepath.Join(dir, "started")))(c)
		require.NoError(c, json.Unmarshal(content, &pids))
	})
	require.Len(t, pids, 4)
	for _, pid := range pids {
		require.True(t, bed.Runs(pid))
	}
	pid, running, err := bed.Running(dir)
	require.NoError(t, err)
	require.True(t, running)
	require.Equal(t, command.Process.Pid, pid)

	require.NoError(t, command.Process.Kill())
	<-ended
	require.NoError(t, bed.Down(dir))
	require.NoDirExists(t, dir)
	for _, pid := range pids {
		require.False(t, bed.Runs(pid))
	}

	client := try.Must(kubernetes.NewForConfig(other.Config()))(t)
	_, err = client.CoreV1().Namespaces().Get(t.Context(), corev1.NamespaceDefault, metav1.GetOptions{})
	require.NoError(t, err, "the other bed goes on")
}

// pidsOf returns the numbers of the processes of a bed.
func pidsOf(b *bed.Bed) (pids []int) {
	for _, component := range b.Components() {
		pids = append(pids, b.PID(component))
	}
	return pids
}

func TestStopLeavesNothing(t *testing.T) {
	first := shared(t)
	b := bed.Start(t, bed.Config{Log: os.Stderr, Nodes: -1, APIServers: 2})
	require.Nil(t, b.Simulator())
	require.NotEqual(t, first.Config().Host, b.Config().Host)
	require.FileExists(t, b.Kubeconfig())
	namespace := b.NewNamespace(t, "n-")
	client := try.Must(kubernetes.NewForConfig(first.Config()))(t)
	_, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	require.Error(t, err, "beds share nothing")
	requireOther(t, b, namespace)
	require.Equal(t, bed.AllComponents, b.Components())
	pids := pidsOf(b)
	require.NoError(t, b.Stop())
	require.NoDirExists(t, b.Dir())
	for _, pid := range pids {
		require.False(t, bed.Runs(pid))
	}
	require.NoError(t, b.Stop(), "twice")
}

// requireOther holds the other API server to one store and one log for both.
func requireOther(t *testing.T, b *bed.Bed, namespace string) {
	t.Helper()
	other := b.Other(b.Config())
	require.NotEqual(t, b.Config().Host, other.Host)
	client := try.Must(kubernetes.NewForConfig(other))(t)
	require.NoError(t, client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}), "they share a store")
	try.Eventually(t, func(c try.T) {
		events := b.Audit(c)
		require.True(c, slices.ContainsFunc(events, func(e bed.AuditEvent) bool { return e.Verb == "delete" && e.Name == namespace }))
		require.True(c, slices.ContainsFunc(events, func(e bed.AuditEvent) bool { return e.Verb == "create" && e.Name == bed.KubeVirtNamespace }))
	})
}
