package proof

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// program returns the path of the bed's kubectl.
func program(t *testing.T) string {
	t.Helper()
	kubectl, err := bed.Kubectl(t.Context(), shared.Versions(), os.Stderr)
	require.NoError(t, err)
	return kubectl
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program(t), append([]string{"--kubeconfig=" + shared.Kubeconfig()}, args...)...)
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// The steps of the demo that need no kind cluster.
func TestDemo(t *testing.T) {
	demo := exec.CommandContext(t.Context(), "../../kind/demo", "process", "guard", "machine", "refused", "rescued", "clean", "stop")
	demo.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(), "TMPDIR="+t.TempDir(),
		"PATH="+filepath.Dir(program(t))+string(filepath.ListSeparator)+os.Getenv("PATH"))
	output, err := demo.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		stop := exec.CommandContext(t.Context(), "../../kind/demo", "stop")
		stop.Env = demo.Env
		require.NoError(t, stop.Run())
	}
	require.NoError(t, err)
	require.Contains(t, string(output), "quota refuses the target pod")
	require.Contains(t, string(output), "and nothing is left")
}
