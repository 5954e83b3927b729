// Package scenarios has the scenario files that the library is held to.
package scenarios

import (
	"embed"
	"errors"
	"io/fs"

	"github.com/vmquota/headroom/examples/testbed/scenario"
)

//go:embed *.yaml
var files embed.FS

// All returns all scenarios, sorted by name.
func All() ([]*scenario.Scenario, error) {
	return Read(files)
}

// Read returns the scenarios in the .yaml files of a folder, sorted by name. What is wrong
// with any of them is in the error.
func Read(folder fs.FS) ([]*scenario.Scenario, error) {
	names, err := fs.Glob(folder, "*.yaml")
	if err != nil {
		return nil, err
	}
	var all []*scenario.Scenario
	var failed []error
	for _, name := range names {
		content, err := fs.ReadFile(folder, name)
		if err != nil {
			return nil, err
		}
		s, err := scenario.Parse(name, content)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, s)
	}
	return all, errors.Join(failed...)
}
