package quota_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/vmquota/headroom"
	root   = ".." // of the module
)

var testLibraries = []string{"github.com/stretchr/testify", "github.com/google/go-cmp", "pgregory.net/rapid", "testing"}

type wall struct {
	path       string
	own, never []string
}

// quota <- ledger <- migration: imports point to the left, never back. The first wall whose
// path a package is below is its wall. It may depend on own of this module, and on nothing
// of never, however indirectly.
var walls = []wall{
	{"quota", nil, slices.Concat(testLibraries, []string{"k8s.io/client-go", "kubevirt.io"})},
	{"ledger/ledgertest", []string{"quota", "ledger"}, []string{"kubevirt.io"}},
	{"ledger", []string{"quota"}, slices.Concat(testLibraries, []string{"kubevirt.io"})},
	{"migration", []string{"quota", "ledger"}, testLibraries},
	{"fake", []string{"quota", "ledger", "migration"}, nil},
	{"examples", []string{"quota", "ledger", "migration", "fake"}, testLibraries},
	{"", nil, []string{"k8s.io", "kubevirt.io"}}, // the documentation
}

func TestImportWalls(t *testing.T) {
	for line := range strings.Lines(string(goCommand(t, "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./..."))) {
		packages := strings.Fields(line)
		path := strings.TrimPrefix(packages[0], module)
		wall := walls[slices.IndexFunc(walls, func(w wall) bool { return w.path == "" || below(path, "/"+w.path) })]
		for _, dependency := range packages[1:] {
			inside := func(own string) bool { return below(dependency, module+"/"+own) }
			if below(dependency, module) && !inside(wall.path) && !slices.ContainsFunc(wall.own, inside) ||
				slices.ContainsFunc(wall.never, func(never string) bool { return below(dependency, never) }) {
				t.Errorf("%s depends on %s", packages[0], dependency)
			}
		}
	}
}

// Package quota is pure: no context, io, log, net, os or rand.
func TestQuotaIsPure(t *testing.T) {
	others := []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/component-helpers/resource", module + "/quota/amounts"}
	standard := []string{"cmp", "encoding/json", "errors", "fmt", "maps", "math", "math/big", "slices", "sort", "strconv", "strings", "time"}
	for _, imported := range strings.Fields(string(goCommand(t, "list", "-f", `{{join .Imports " "}}`, "./quota/..."))) {
		if !slices.Contains(standard, imported) && !slices.ContainsFunc(others, func(path string) bool { return below(imported, path) }) {
			t.Errorf("quota imports %s", imported)
		}
	}
}

// below reports whether path is root or below it.
func below(path, root string) bool { return strings.HasPrefix(path+"/", root+"/") }

// Whoever embeds the library gets these modules with it, and no replacements, which
// would not hold for them.
func TestModuleRequirements(t *testing.T) {
	var file struct {
		Module  struct{ Path string }
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace, Exclude, Tool []any
	}
	require.NoError(t, json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &file))
	require.Equal(t, module, file.Module.Path)
	require.Empty(t, file.Replace)
	require.Empty(t, file.Exclude)
	require.Empty(t, file.Tool)

	allowed := []string{
		"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "k8s.io/component-helpers", "k8s.io/klog/v2",
		"kubevirt.io/api", "sigs.k8s.io/json", "sigs.k8s.io/yaml",
		"github.com/google/go-cmp", "github.com/stretchr/testify", "pgregory.net/rapid",
	}
	for _, requirement := range file.Require {
		if !requirement.Indirect {
			require.Contains(t, allowed, requirement.Path)
		}
	}
}

// goCommand returns what the go command prints. Go test caches a result until the
// files change that the test itself has read, so the folders of the module are read
// here as well.
func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".git") {
			return fs.SkipDir
		}
		return err
	}))
	command := exec.Command("go", args...)
	command.Dir = root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, stderr.String())
	return out
}
