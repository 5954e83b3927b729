package proof

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// commands returns the commands of a section of beside.md.
func commands(t try.T, title string) (all []string) {
	t.Helper()
	page := try.Must(os.ReadFile("../beside.md"))(t)
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
func (s scene) types(command string) (string, error) {
	s.Helper()
	return stage.Shell(s, "../../..", strings.NewReplacer("TENANT", s.Namespace(), "NAME", "default-gn4d2").Replace(command))
}

// follows runs the commands of a section, which are that many.
func (s scene) follows(title string, n int) {
	s.Helper()
	all := commands(s, title)
	require.Len(s, all, n, title)
	for _, command := range all {
		said, err := s.types(command)
		require.NoError(s, err, said)
		require.NotContains(s, said, "No resources found")
	}
}

// The page for administrators, from its first command to its last, with an old Harvester that
// scales by itself: migrations succeed, and nothing is left.
func TestPage(t *testing.T) {
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
			s.scale(scaling, refused)
			s.CreateMigration(scenario.Migrate{Name: "first", VM: "vm0"})
			s.AwaitPhase("first", scenario.Refused)
			if locked {
				require.True(t, <-refused)
			}

			s.follows("Install", 2)
			// The bed runs no images: this is what the pods would run, with their account.
			p := stage.StartAs(t, "headroom", "headroom", "page", "controller",
				"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
			s.Succeeded("first")
			s.CreateMigration(scenario.Migrate{Name: "second", VM: "vm0", Goes: scenario.Hang})
			s.AwaitPhase("second", "Running")
			s.Enforces(s.Plus(1))
			s.follows("What you see", 2)

			require.NoError(t, p.Stop())
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
			s.Release("second")
			s.Succeeded("second")
			s.AwaitRest()
		})
	}
}
