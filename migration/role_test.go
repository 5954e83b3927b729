package migration_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/migration"
)

// roleOf reads the ClusterRole of a package comment.
func roleOf(t *testing.T, file string) rbacv1.ClusterRole {
	t.Helper()
	source, err := os.ReadFile(file)
	require.NoError(t, err)
	var text []string
	for _, line := range strings.Split(string(source), "\n") {
		if indented, ok := strings.CutPrefix(line, "//\t"); ok {
			text = append(text, indented)
		} else if strings.Contains(strings.Join(text, "\n"), "kind: ClusterRole") {
			break
		} else {
			text = nil
		}
	}
	var role rbacv1.ClusterRole
	require.NoError(t, yaml.UnmarshalStrict([]byte(strings.Join(text, "\n")), &role))
	return role
}

// The ClusterRole of the package comment allows each call of a Controller, and nothing that
// it never does but get of quotas (after a conflict), patch of events (repeated ones) and
// patch of migrations (nudges), which have tests of their own.
func TestRole(t *testing.T) {
	s := serve(t, "basic", 2*time.Second, persist, useDevices)
	await(run(t.Context(), t, s.clients(), migration.Options{}), 1)
	allowed := map[string]bool{}
	for _, rule := range roleOf(t, "doc.go").Rules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				allowed[verb+" "+rule.APIGroups[0]+"/"+resource] = true
			}
		}
	}
	unused := maps.Clone(allowed)
	for _, action := range append(s.core.Actions(), s.dynamic.Actions()...) {
		resource := action.GetResource().Resource
		if sub := action.GetSubresource(); sub != "" {
			resource += "/" + sub
		}
		call := action.GetVerb() + " " + action.GetResource().Group + "/" + resource
		require.True(t, allowed[call], "%s is not allowed", call)
		delete(unused, call)
	}
	require.Equal(t, []string{
		"create /events", "get /resourcequotas", "patch /events", "patch kubevirt.io/virtualmachineinstancemigrations",
	}, slices.Sorted(maps.Keys(unused)))
}
