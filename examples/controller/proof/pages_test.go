package proof

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// spans are the commands in running text, and the lines of blocks of commands.
var spans = regexp.MustCompile("(?m)`((?:kubectl|go (?:-C \\S+ )?build) [^`]*)`|^    (kubectl .*)$")

// commands returns what a page tells its reader to type. Programs come first.
func commands(t *testing.T, page string) (all []string) {
	t.Helper()
	data := try.Must(os.ReadFile(filepath.Join(root, page)))(t)
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
	s.Disable(true) // so that there is an event of a refusal
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", scenario.Refused)
	s.Disable(false)
	s.AwaitPhase("m0", "Running")
	s.Raised()
	bin := t.TempDir()
	here := strings.NewReplacer("TENANT", s.Namespace(), "NAME", "q", "MIGRATION", "m0", "~/bin", bin)
	for _, page := range []string{"README.md", "examples/controller/RUNBOOK.md"} {
		for _, command := range commands(t, page) {
			t.Run(page+" "+command, func(t *testing.T) {
				output := try.Must(stage.Shell(t, root, "PATH="+bin+":$PATH; "+here.Replace(command)))(t)
				require.NotContains(t, output, "No resources found")
			})
		}
	}
}
