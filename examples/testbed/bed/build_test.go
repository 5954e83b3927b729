package bed

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSum looks at what makes a program be built anew.
func TestSum(t *testing.T) {
	source := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(source, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	for _, name := range []string{"main.go", "go.mod", "go.sum", "oldest.mod", "oldest.sum", "inner/go.mod"} {
		write(name, "before")
	}
	p := program{modfile: "go.mod"}
	sum := func() string { return p.sum(t, source) }
	last := sum()
	require.Equal(t, last, sum())
	for _, test := range []struct {
		name    string
		matters bool
	}{{"main.go", true}, {"go.mod", true}, {"go.sum", true}, {"inner/go.mod", true}, {"oldest.mod", false}, {"oldest.sum", false}} {
		write(test.name, "after")
		require.Equal(t, test.matters, last != sum(), test.name)
		last = sum()
	}
	p.modfile = "oldest.mod"
	require.NotEqual(t, last, sum())
	last = sum()
	p.tags = "some"
	require.NotEqual(t, last, sum())
	last = sum()
	p.ldflags = "-s"
	require.NotEqual(t, last, sum())
}

func TestFollow(t *testing.T) {
	var log bytes.Buffer
	output := "go: downloading example.com/a v1.0.0\nexample.com/a\nexample.com/a/b\n# example.com/a/b\nb.go:1:1: no good\n"
	require.Equal(t, []string{"# example.com/a/b", "b.go:1:1: no good"}, follow(strings.NewReader(output), &log, "building it"))
	require.Equal(t, "building it: 0 s, 1 modules downloaded, 0 packages compiled\nbuilding it: 0 s, 1 modules downloaded, 2 packages compiled\n", log.String())
}
