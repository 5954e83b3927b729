package proof

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// The steps of the demo that need no kind cluster, with the kubectl of the bed.
func TestDemo(t *testing.T) {
	kubectl, err := bed.Kubectl(t.Context(), shared.Versions(), os.Stderr)
	require.NoError(t, err)
	demo := exec.CommandContext(t.Context(), "../../kind/demo", "process", "guard", "machine", "refused", "rescued", "clean", "stop")
	demo.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(), "TMPDIR="+t.TempDir(),
		"PATH="+filepath.Dir(kubectl)+string(filepath.ListSeparator)+os.Getenv("PATH"))
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
