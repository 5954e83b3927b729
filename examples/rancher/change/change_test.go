package change

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// The change is at most ten lines of code, and what README.md shows is what is compiled here.
func TestTenLines(t *testing.T) {
	page := try.Must(os.ReadFile("../README.md"))(t)
	code := try.Must(os.ReadFile("change.go"))(t)
	_, diff, found := strings.Cut(string(page), "```diff\n")
	require.True(t, found)
	diff, _, _ = strings.Cut(diff, "```")
	lines := 0
	rest := string(code)
	for line := range strings.Lines(diff) {
		if added, is := strings.CutPrefix(line, "+"); is {
			lines++
			_, after, there := strings.Cut(rest, "\n"+added)
			require.True(t, there, "not in change.go, or not in this order: %s", added)
			rest = "\n" + after
		}
		require.False(t, strings.HasPrefix(line, "-"), "nothing of Rancher's is taken out: %s", line)
	}
	t.Logf("%d lines", lines)
	require.Greater(t, lines, 5)
	require.LessOrEqual(t, lines, 10)
}
