package proof

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/sim"
)

// commands returns the commands of a section of beside.md.
func commands(t *testing.T, title string) (all []string) {
	t.Helper()
	page, err := os.ReadFile("../beside.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## "+title+"\n")
	require.True(t, found, title)
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if command, is := strings.CutPrefix(line, "$ "); is {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// types runs a command as an administrator types it, in the root of the tree.
func (s *scene) types(command string) (string, error) {
	s.t.Helper()
	path, err := bed.Kubectl(s.t.Context(), shared.Versions(), os.Stderr)
	require.NoError(s.t, err)
	command = strings.NewReplacer("TENANT", s.namespace, "NAME", "default-gn4d2").Replace(command)
	shell := exec.CommandContext(s.t.Context(), "bash", "-euo", "pipefail", "-c", command)
	shell.Dir = "../../.."
	shell.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(), "PATH="+filepath.Dir(path)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	said, err := shell.CombinedOutput()
	s.t.Logf("$ %s\n%s", command, said)
	return string(said), err
}

// follows runs the commands of a section, which are that many.
func (s *scene) follows(title string, n int) {
	s.t.Helper()
	all := commands(s.t, title)
	require.Len(s.t, all, n, title)
	for _, command := range all {
		said, err := s.types(command)
		require.NoError(s.t, err, said)
		require.NotContains(s.t, said, "No resources found")
	}
}

// The page for administrators, from its first command to its last, with an old Harvester that
// scales by itself: migrations succeed, and nothing is left.
func TestPage(t *testing.T) {
	controller := filepath.Join(t.TempDir(), "controller")
	built, err := exec.Command("go", "-C", "../../controller", "build", "-o", controller, ".").CombinedOutput()
	require.NoError(t, err, "%s", built)
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			s := newScene(t, locked)
			probe := commands(t, "Is the lock in force?")
			require.Len(t, probe, 1)
			said, err := s.types(probe[0])
			require.Equal(t, locked, err != nil, said)
			require.Equal(t, locked, strings.Contains(said, "users are forbidden from changing resources managed by Rancher"), said)
			s.follows("With the lock", 0)
			if !locked {
				s.follows("Without the lock", 1)
			}
			refused := make(chan bool, 1)
			scaling, stop := context.WithCancel(t.Context())
			defer stop()
			go s.scale(scaling, refused)
			s.migrate("first", "")
			s.refused()
			if locked {
				require.True(t, <-refused)
			}

			s.follows("Install", 2)
			// The bed runs no images: this is what the pods would run, with their account.
			p := start(t, controller, "headroom", "headroom", "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
			s.await("first", kubevirtv1.MigrationSucceeded)
			s.migrate("second", sim.Hang)
			s.await("second", kubevirtv1.MigrationRunning)
			s.enforces(s.plus(1))
			s.follows("What you see", 2)

			p.stop()
			stop()
			away := commands(t, "Take it away")
			require.Len(t, away, 2)
			if locked {
				away = away[:1]
			}
			for _, command := range away {
				said, err := s.types(command)
				require.NoError(t, err, said)
			}
			_, err = s.vmims.Patch(t.Context(), "second", fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, sim.MigrationAnnotation))
			require.NoError(t, err)
			s.await("second", kubevirtv1.MigrationSucceeded)
			s.settled()
		})
	}
}
