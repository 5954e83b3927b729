package quota_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
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

// A wall says what a package, and those below its path, may import.
type wall struct {
	path string
	own  []string // of this module, with all below; itself goes without saying
	// direct are the prefixes of what else it may import itself; nil: anything.
	direct []string
	// never are prefixes of what it must not depend on, however indirectly.
	never []string
}

var testLibraries = []string{"github.com/stretchr/testify", "github.com/google/go-cmp", "pgregory.net/rapid", "testing"}

// quota <- ledger <- migration: imports point to the left, never back. The first
// wall whose path a package is below is its wall.
var walls = []wall{
	{
		path: "quota",
		direct: []string{
			"k8s.io/api", "k8s.io/apimachinery", "k8s.io/component-helpers/resource",
			// No context, io, log, net, os or rand: it is pure.
			"cmp", "errors", "fmt", "hash/maphash", "maps", "math", "math/big", "math/bits", "slices", "sort", "strconv", "strings", "time",
		},
		never: slices.Concat(testLibraries, []string{"k8s.io/client-go", "kubevirt.io"}),
	},
	{path: "ledger/ledgertest", own: []string{"quota", "ledger"}, never: []string{"kubevirt.io"}},
	{path: "ledger", own: []string{"quota"}, never: slices.Concat(testLibraries, []string{"kubevirt.io"})},
	{path: "migration", own: []string{"quota", "ledger"}, never: testLibraries},
	{path: "fake", own: []string{"quota", "ledger", "migration"}},
	{path: "examples", own: []string{"quota", "ledger", "migration", "fake"}, never: testLibraries},
	{path: "", direct: []string{}}, // the documentation
}

// A goPackage is what go list says of one.
type goPackage struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func TestImportWalls(t *testing.T) {
	packages := map[string]goPackage{}
	listed := json.NewDecoder(bytes.NewReader(goCommand(t, "list", "-e", "-deps", "-json=ImportPath,Imports,Standard", "./...")))
	for {
		var p goPackage
		err := listed.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
	for _, name := range []string{"quota", "ledger", "migration"} {
		require.Contains(t, packages, module+"/"+name)
	}

	for _, importPath := range slices.Sorted(maps.Keys(packages)) {
		path, ours := strings.CutPrefix(importPath+"/", module+"/")
		if !ours {
			continue
		}
		wall := walls[slices.IndexFunc(walls, func(w wall) bool { return below(path, w.path) })]
		for _, imported := range packages[importPath].Imports {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				allowed := below(own, wall.path) || slices.ContainsFunc(wall.own, func(path string) bool { return below(own, path) })
				if !allowed || wall.path == "" {
					t.Errorf("%s imports %s", importPath, imported)
				}
			} else if wall.direct != nil && !slices.ContainsFunc(wall.direct, func(path string) bool {
				return imported == path || !packages[imported].Standard && below(imported, path)
			}) {
				t.Errorf("%s imports %s", importPath, imported)
			}
		}
		for dependency, via := range dependencies(packages, importPath) {
			for _, never := range wall.never {
				if below(dependency, never) && !below(via, never) {
					t.Errorf("%s depends on %s, which %s imports", importPath, dependency, via)
				}
			}
		}
	}
}

// below reports whether path is root or below it.
func below(path, root string) bool {
	return root == "" || strings.HasPrefix(strings.TrimSuffix(path, "/")+"/", root+"/")
}

// dependencies returns all that the package at path depends on, each with one that
// imports it.
func dependencies(packages map[string]goPackage, path string) map[string]string {
	via := map[string]string{}
	queue := []string{path}
	for len(queue) > 0 {
		importer := queue[0]
		queue = queue[1:]
		for _, imported := range packages[importer].Imports {
			if _, seen := via[imported]; !seen && imported != "C" {
				via[imported] = importer
				queue = append(queue, imported)
			}
		}
	}
	return via
}

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
