package scenario_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
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
	s := try.Must(scenario.Parse("folder/exact.yaml", []byte(good)))(t)
	require.Equal(t, "exact", s.Name)
	require.Len(t, s.Steps, 4)
	require.Equal(t, "1015m", s.Steps[0].Quota.Hard.Name("limits.cpu", "").String())
	require.Nil(t, s.End.Writes)
}

// What is wrong is said with the file and the field.
func TestParseErrors(t *testing.T) {
	const head = "about: a\nsteps:\n- quota: {name: q, hard: {limits.cpu: 1}}\n"
	for _, test := range []struct{ name, content, want string }{
		{"no YAML", "about: [", "did not find expected node content"},
		{"a key twice", "about: a\nabout: b\n", `key "about" already set in map`},
		{"an unknown field", head + "- migrate: {name: m1, vm: vm1, speed: 1}\n", `unknown field "speed"`},
		{"another type", head + "- migrate: {name: [m1], vm: vm1}\n", "cannot unmarshal array into Go struct field"},
		{"no quantity", "about: a\nsteps:\n- quota: {name: q, hard: {limits.cpu: lots}}\n", "quantities must match the regular expression"},
		{"no sentence", "steps:\n- undrain: node01\n", "about or steps are missing"},
		{"no steps", "about: a\n", "about or steps are missing"},
		{"two things in a step", head + "- {drain: node01, undrain: node01}\n", "steps[1]: a step is one thing, not 2"},
		{"nothing in a step", head + "- {}\n", "steps[1]: a step is one thing, not 0"},
		{"an unknown way", head + "- migrate: {name: m1, vm: vm1, goes: far}\n", `steps[1].migrate.goes: "far" is none of ["" "hang" "fail"]`},
		{"no duration", head + "- migrate: {name: m1, vm: vm1, linger: long}\n", `steps[1].migrate.linger: time: invalid duration "long"`},
		{"a migration that nobody made", head + "- await: {migrations: {m1: Gone}}\n", "steps[1].await.migrations.m1: no earlier step has made it"},
		{"an unknown phase", head + "- migrate: {name: m1, vm: vm1}\n- await: {migrations: {m1: Done}}\n", `steps[2].await.migrations.m1: "Done" is none of`},
		{"an unknown phase of an update", head + "- await: {update: Done}\n", `steps[1].await.update: "Done" is none of`},
		{"an unknown state of a quota", head + "- await: {quotas: {q: Risen}}\n", `steps[1].await.quotas.q: "Risen" is none of ["Raised" "Static"]`},
		{"an unknown state of the ledger", head + "- await: {ledger: Full}\n", `steps[1].await.ledger: "Full" is none of ["" "Empty" "Recorded"]`},
		{"an end that says nothing", head + "- migrate: {name: m1, vm: vm1}\n", "end.migrations.m1 is missing"},
	} {
		s, err := scenario.Parse("s.yaml", []byte(test.content))
		require.ErrorContains(t, err, "s.yaml: ", test.name)
		require.ErrorContains(t, err, test.want, test.name)
		require.Nil(t, s, test.name)
	}
}
