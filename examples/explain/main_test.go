package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

const recordings = "../../migration/testdata/recordings/"

// A result is what the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

func explainWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), append([]string{"explain"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return result{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestGolden(t *testing.T) {
	for name, args := range map[string]string{
		"basic-free":        "-f " + recordings + "basic.jsonl --at 0.5s",
		"basic-queued":      "-f " + recordings + "basic.jsonl --at 1.33",
		"basic-refused":     "-f " + recordings + "basic.jsonl --at 2s",
		"basic-raised":      "-f " + recordings + "basic.jsonl --at 3375ms",
		"basic-enforced":    "-f " + recordings + "basic.jsonl --at 3382ms",
		"basic-running":     "-f " + recordings + "basic.jsonl --at 4.2s",
		"basic-succeeded":   "-f " + recordings + "basic.jsonl --at 5s",
		"basic-end":         "-f " + recordings + "basic.jsonl",
		"basic-budget":      "-f " + recordings + "basic.jsonl --at 2s --budget limits.memory=1Gi",
		"basic-json":        "-f " + recordings + "basic.jsonl --at 2s -o json",
		"basic-yaml":        "-f " + recordings + "basic.jsonl --at 2s -o yaml",
		"abort-refused":     "-f " + recordings + "abort.jsonl --at 2.2s",
		"abort-vmim-gone":   "-f " + recordings + "abort.jsonl --at 4s",
		"fail-failed":       "-f " + recordings + "fail.jsonl --at 2.45s",
		"vmidelete-both":    "-f " + recordings + "vmidelete.jsonl --at 2.6s",
		"vmidelete-vmi":     "-f " + recordings + "vmidelete.jsonl --at 2.82s",
		"autolimits-end":    "-f " + recordings + "autolimits.jsonl",
		"autolimits-no":     "-f " + recordings + "autolimits.jsonl --at 2s",
		"all-recordings":    "-f " + recordings,
		"list":              "-f testdata/list.yaml",
		"drain":             "-f testdata/drain",
		"drain-budget":      "-f testdata/drain --budget limits.memory=6Gi",
		"drain-budget-json": "-f testdata/drain --budget limits.memory=6Gi,limits.cpu=8 -o json",
		"over-static":       "-f testdata/over-static.yaml",
		"over-strict":       "-f testdata/over-static.yaml --strict",
		"rescued-open":      "-f testdata/rescued.jsonl --at 3420ms",
		"rescued-charged":   "-f testdata/rescued.jsonl --at 5s",
		"abort.svg":         "-f " + recordings + "abort.jsonl -o svg",
		"fail.svg":          "-f " + recordings + "fail.jsonl -o svg",
		"vmidelete.svg":     "-f " + recordings + "vmidelete.jsonl -o svg",
		"autolimits.svg":    "-f " + recordings + "autolimits.jsonl -o svg",
		"deferred.svg":      "-f " + recordings + "basic.jsonl -o svg --resource limits.cpu --budget limits.cpu=1",
	} {
		t.Run(name, func(t *testing.T) {
			got := explainWith(t, "", strings.Fields(args)...)
			require.Equal(t, exitOK, got.code, got.stderr)
			golden(t, name, got.stdout)
		})
	}
}

// TestSameInput reads the same state in other forms.
func TestSameInput(t *testing.T) {
	list, err := os.ReadFile("testdata/list.yaml")
	require.NoError(t, err)
	recorded, err := os.ReadFile(recordings + "basic.jsonl")
	require.NoError(t, err)
	withoutFirstLine := func(s string) string { _, rest, _ := strings.Cut(s, "\n"); return rest }

	file := explainWith(t, "", "-f", "testdata/list.yaml")
	require.Empty(t, file.stderr)
	require.Equal(t, withoutFirstLine(file.stdout), withoutFirstLine(explainWith(t, string(list), "-f", "-").stdout), "standard input")
	require.Equal(t, withoutFirstLine(file.stdout), withoutFirstLine(explainWith(t, asJSON(t, list), "-f", "-").stdout), "JSON")
	require.Equal(t, withoutFirstLine(file.stdout), withoutFirstLine(explainWith(t, typedLists(t, list), "-f", "-").stdout), "PodList and so on")
	require.Equal(t, file.stdout, explainWith(t, "", "explain", "--filename", "testdata/list.yaml", "-n", "tenant").stdout, "as a plugin")
	require.Contains(t, explainWith(t, string(list), "-f", "testdata/list.yaml", "-f", "-").stdout, "2 files\n", "the same objects twice")

	at2s := explainWith(t, "", "-f", recordings+"basic.jsonl", "--at", "2s")
	require.Equal(t, withoutFirstLine(at2s.stdout), withoutFirstLine(explainWith(t, string(recorded), "-f", "-", "--at", "2").stdout))
	require.Equal(t,
		strings.ReplaceAll(withoutFirstLine(at2s.stdout), "basic-p8zd5", "tenant"), withoutFirstLine(file.stdout), "the file is the recording at 2 s")
}

func TestSkippedKindsAreTold(t *testing.T) {
	got := explainWith(t, "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n---\n"+read(t, "testdata/list.yaml"), "-f", "-")
	require.Equal(t, "note: skipped, they say nothing about what migrations charge: 1 Node\n", got.stderr)
	require.Empty(t, explainWith(t, "", "-f", "testdata/drain").stderr, "a Namespace says something")
}

func TestFitsThePage(t *testing.T) {
	for _, args := range []string{"-f " + recordings + "basic.jsonl --at 2s", "-f " + recordings + "basic.jsonl", "-f testdata/drain"} {
		for _, line := range strings.Split(explainWith(t, "", strings.Fields(args)...).stdout, "\n") {
			require.LessOrEqual(t, len([]rune(line)), pageWidth, line)
		}
	}
}

func TestNoProgressOffTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	p := newProgress(f)
	p.begin("reading")
	p.clear()
	info, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

// TestReadme holds the README to what the program prints.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	t.Chdir("../..")
	blocks := strings.Split(string(readme), "```console\n$ go run ./examples/explain ")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		block, _, ok := strings.Cut(block, "```")
		require.True(t, ok)
		args, want, _ := strings.Cut(block, "\n")
		if want == "" {
			continue // into a file; see TestShippedPicture
		}
		require.Equal(t, want, explainWith(t, "", strings.Fields(args)...).stdout)
	}
}

// TestShippedPicture holds the picture that the documentation shows to what is drawn.
func TestShippedPicture(t *testing.T) {
	got := explainWith(t, "", "-f", "testdata/rescued.jsonl", "-o", "svg").stdout
	if *update {
		require.NoError(t, os.WriteFile("rescued.svg", []byte(got), 0o644))
	}
	require.Equal(t, read(t, "rescued.svg"), got)
}

// TestHelp holds the help to the flags that there are.
func TestHelp(t *testing.T) {
	got := explainWith(t, "", "-h")
	require.Equal(t, exitOK, got.code)
	require.Empty(t, got.stderr)
	for _, name := range []string{
		"-f, --filename", "--at", "-n, --namespace", "-A, --all-namespaces", "--kubeconfig", "--context",
		"--budget", "--strict", "-o, --output", "--resource",
	} {
		require.Contains(t, got.stdout, name)
	}
	require.Contains(t, usage("/usr/local/bin/kubectl-headroom"), "kubectl headroom -n tenant")
	require.Contains(t, usage(`explain.exe`), "explain -f -")
}
