package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// env is an environment.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	o, err := parseOptions(nil, env("POD_NAMESPACE", "headroom", "POD_NAME", "headroom-1"))
	require.NoError(t, err)
	require.Equal(t, "headroom", o.namespace)
	require.Equal(t, "headroom-1", o.identity)
	require.True(t, o.leaderElect)
	require.Equal(t, 15*time.Second, o.leaseDuration)
	require.Empty(t, o.pprofAddress, "profiles are served when somebody asks for them")
	require.Nil(t, o.policy.Budget)
	require.False(t, o.disabled)
}

// A flag goes before its environment variable, and that before the default.
func TestEnvironment(t *testing.T) {
	with := env("POD_NAMESPACE", "headroom", "HEADROOM_SHARDS", "4", "HEADROOM_SHARD", "2",
		"HEADROOM_LEADER_ELECT", "false", "HEADROOM_BUDGET", "limits.memory=64Gi, limits.cpu=32")
	o, err := parseOptions([]string{"--shard=3", "--namespace=system"}, with)
	require.NoError(t, err)
	require.Equal(t, shard{index: 3, count: 4}, o.shard)
	require.Equal(t, "system", o.namespace)
	require.False(t, o.leaderElect)
	text, err := json.Marshal(o.policy.Budget)
	require.NoError(t, err)
	require.Equal(t, `{"limits.cpu":"32","limits.memory":"64Gi"}`, string(text))
}

// --version asks for nothing else, and is no variable, which others may have set.
func TestVersion(t *testing.T) {
	o, err := parseOptions([]string{"--version"}, env())
	require.NoError(t, err)
	require.Equal(t, options{version: true}, o)
	o, err = parseOptions(nil, env("POD_NAMESPACE", "headroom", "HEADROOM_VERSION", "1.2"))
	require.NoError(t, err)
	require.False(t, o.version)
	require.NotEmpty(t, version())
}

func TestBadOptions(t *testing.T) {
	pod := env("POD_NAMESPACE", "headroom")
	for _, test := range []struct {
		args []string
		env  func(string) string
		says string
	}{
		{nil, env(), "--namespace is not set"},
		{[]string{"--shards=2", "--shard=2"}, pod, "--shard is 2, of --shards=2 the last is 1"},
		{[]string{"--shards=0"}, pod, "--shards is 0"},
		{[]string{"--budget=limits.memory"}, pod, `--budget: "limits.memory" is not like`},
		{[]string{"--budget=limits.cpu=-1"}, pod, `--budget: "limits.cpu=-1" is not like`},
		{[]string{"--leader-elect-renew-deadline=20s"}, pod, "lease duration > renew deadline"},
		{[]string{"--logging-format=xml"}, pod, `"xml", not text or json`},
		{[]string{"--concurrent-namespaces=0"}, pod, "--concurrent-namespaces is 0"},
		{[]string{"serve"}, pod, `unknown argument "serve"`},
		{[]string{"--unknown"}, pod, "unknown flag"},
		{nil, env("POD_NAMESPACE", "headroom", "HEADROOM_SHARDS", "many"), "$HEADROOM_SHARDS"},
	} {
		_, err := parseOptions(test.args, test.env)
		require.ErrorContains(t, err, test.says, "%v", test.args)
	}
}
