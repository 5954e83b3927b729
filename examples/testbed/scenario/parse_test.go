package scenario_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario"
)

const good = `about: One VM fills its quota, and migrates.
steps:
- quota: {name: q, hard: {limits.cpu: 1015m}}
- vm: {name: vm, count: 2, cores: 1, memory: 1Gi}
- migrate: {name: m1, vm: vm2, linger: 3s}
- await: {migrations: {m1: Charged}}
end:
  migrations: {m1: Succeeded}
`

func TestParse(t *testing.T) {
	s, err := scenario.Parse("folder/exact.yaml", []byte(good))
	require.NoError(t, err)
	require.Equal(t, "exact", s.Name)
	require.Len(t, s.Steps, 4)
	require.Equal(t, "1015m", s.Steps[0].Quota.Hard.Name("limits.cpu", "").String())
	require.Nil(t, s.End.Writes)
}

// What is wrong is said with the file and the field.
func TestParseErrors(t *testing.T) {
	const head = "about: a\nsteps:\n- quota: {name: q, hard: {limits.cpu: 1}}\n- vm: {name: vm1, cores: 1, memory: 1Gi}\n"
	for _, test := range []struct{ name, content, want string }{
		{"no YAML", "about: [", "s.yaml: yaml: line 1: did not find expected node content"},
		{"a key twice", "about: a\nabout: b\n", `s.yaml: yaml: unmarshal errors:` + "\n" + `  line 2: key "about" already set in map`},
		{"an unknown field", head + "- migrate: {name: m1, vm: vm1, speed: 1}\n", `s.yaml: unknown field "steps[2].migrate.speed"`},
		{"another type", head + "- migrate: {name: [m1], vm: vm1}\n", "s.yaml: json: cannot unmarshal array into Go struct field Migrate.steps.migrate.name of type string"},
		{"no quantity", "about: a\nsteps:\n- quota: {name: q, hard: {limits.cpu: lots}}\n", "s.yaml: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
		{"no sentence", "steps:\n- undrain: node01\n", "s.yaml: about: is missing"},
		{"no steps", "about: a\n", "s.yaml: steps: is missing"},
		{"two things in a step", head + "- {drain: node01, undrain: node01}\n", "s.yaml: steps[2]: a step is one thing, not 2: drain, undrain"},
		{"nothing in a step", head + "- {}\n", "s.yaml: steps[2]: a step is one thing, not 0: "},
		{"a quota twice", head + "- quota: {name: q, hard: {pods: 1}}\n", `s.yaml: steps[2].quota.name: "q": is there already`},
		{"a VM without memory", "about: a\nsteps:\n- vm: {name: vm1, cores: 1}\n", "s.yaml: steps[0].vm.memory: is missing"},
		{"an unknown VM", head + "- migrate: {name: m1, vm: vm2}\nend: {migrations: {m1: Failed}}\n", `s.yaml: steps[2].migrate.vm: "vm2": no earlier step has made it`},
		{"an unknown way", head + "- migrate: {name: m1, vm: vm1, goes: far}\nend: {migrations: {m1: Failed}}\n", `s.yaml: steps[2].migrate.goes: "far" is neither hang nor fail`},
		{"no duration", head + "- migrate: {name: m1, vm: vm1, linger: long}\nend: {migrations: {m1: Failed}}\n", `s.yaml: steps[2].migrate.linger: time: invalid duration "long"`},
		{"an unknown phase", head + "- migrate: {name: m1, vm: vm1}\n- await: {migrations: {m1: Done}}\nend: {migrations: {m1: Failed}}\n", `s.yaml: steps[3].await.migrations.m1: "Done" is none of Refused, Gone, Charged, Pending, Scheduling, Scheduled, PreparingTarget, TargetReady, Running, Succeeded, Failed`},
		{"limits of an unknown quota", head + "- await: {enforced: {r: {pods: 1}}}\n", `s.yaml: steps[2].await.enforced.r: "r": no earlier step has made it`},
		{"a kill switch of an unknown quota", head + "- killSwitch: {quota: r, disabled: true}\n", `s.yaml: steps[2].killSwitch.quota: "r": no earlier step has made it`},
		{"a ledger that nobody reads", head + "- ledger: {delete: true}\n", "s.yaml: steps[2].ledger: needs a scenario that is recorded"},
		{"an end that says nothing", head + "- migrate: {name: m1, vm: vm1}\n", "s.yaml: end.migrations.m1: is missing"},
		{"an end of what was not", head + "end: {migrations: {m1: Failed}}\n", `s.yaml: end.migrations.m1: "m1": no earlier step has made it`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := scenario.Parse("s.yaml", []byte(test.content))
			require.EqualError(t, err, test.want)
			require.Nil(t, s)
			var detail *scenario.Error
			require.True(t, errors.As(err, &detail))
			require.Equal(t, "s.yaml", detail.File)
		})
	}
}
