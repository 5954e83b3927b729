package bed

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	sum := func() string {
		result, err := p.sum(t.Context(), source)
		require.NoError(t, err)
		return result
	}
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

func TestLockIsHeldByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() { t.Error("nobody else has it") })
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = lock(ctx, path, cancel)
	require.ErrorIs(t, err, context.Canceled)

	busy := make(chan struct{})
	locked := make(chan error)
	go func() {
		unlock, err := lock(t.Context(), path, func() { close(busy) })
		if err == nil {
			unlock()
		}
		locked <- err
	}()
	<-busy
	unlock()
	require.NoError(t, <-locked)
}

func TestProgress(t *testing.T) {
	p := &progress{title: "building it", start: time.Now()}
	p.read(strings.NewReader(`go: downloading example.com/a v1.0.0
example.com/a
example.com/a/b
# example.com/a/b
b.go:1:1: no good
`))
	require.Equal(t, "building it: 0 s, 1 modules downloaded, 2 packages compiled", p.line())
	require.Equal(t, "# example.com/a/b\nb.go:1:1: no good", p.errors())
}
