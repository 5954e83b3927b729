package proof

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/sim"
)

const root = "../../.."

// spans are the commands in running text, and the lines of blocks of commands.
var spans = regexp.MustCompile("(?m)`((?:kubectl|go (?:-C \\S+ )?build) [^`]*)`|^    (kubectl .*)$")

// commands returns what a page tells its reader to type. Programs come first.
func commands(t *testing.T, page string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, page))
	require.NoError(t, err)
	for _, found := range spans.FindAllStringSubmatch(string(data), -1) {
		command := found[1] + found[2]
		if strings.HasPrefix(command, "go ") {
			all = append([]string{command}, all...)
		} else {
			all = append(all, command)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// While a quota is raised for a migration, each command of the pages works, and those that
// show something have something to show.
func TestCommandsOfThePages(t *testing.T) {
	pair(t)
	s := newScene(t, 1)
	s.disable(true) // so that there is an event of a refusal
	s.migrate(0, sim.Hang)
	s.refused(0)
	s.disable(false)
	s.await(0, kubevirtv1.MigrationRunning)
	s.raised()
	bin := t.TempDir()
	here := strings.NewReplacer("TENANT", s.namespace, "NAME", "q", "MIGRATION", "m0", "~/bin", bin)
	for _, page := range []string{"README.md", "examples/controller/RUNBOOK.md"} {
		for _, command := range commands(t, page) {
			t.Run(page+" "+command, func(t *testing.T) {
				shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", here.Replace(command))
				shell.Dir = root
				shell.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(),
					"PATH="+strings.Join([]string{bin, filepath.Dir(program(t)), os.Getenv("PATH")}, string(filepath.ListSeparator)))
				output, err := shell.CombinedOutput()
				require.NoError(t, err, "%s", output)
				t.Logf("%s", output)
				require.NotContains(t, string(output), "No resources found")
			})
		}
	}
}
