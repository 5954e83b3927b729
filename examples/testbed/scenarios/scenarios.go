// Package scenarios has the scenario files that the library is held to.
package scenarios

import (
	"embed"
	"errors"

	"github.com/vmquota/headroom/examples/testbed/scenario"
)

//go:embed *.yaml
var files embed.FS

// All returns all scenarios, sorted by name. What is wrong with any file is in the error.
func All() ([]*scenario.Scenario, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var all []*scenario.Scenario
	var failed []error
	for _, entry := range entries {
		content, err := files.ReadFile(entry.Name())
		s, wrong := scenario.Parse(entry.Name(), content)
		all, failed = append(all, s), append(failed, err, wrong)
	}
	return all, errors.Join(failed...)
}
