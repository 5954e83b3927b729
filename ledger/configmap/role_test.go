package configmap_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger/configmap"
)

// TestRole holds that each verb of the documented Role is needed. That no other is used
// is held by the server of each test, which notes the calls that the Role does not allow.
func TestRole(t *testing.T) {
	s := newServer(t)
	var used []string
	note := func(verbs ...string) { used = append(used, verbs...) }
	s.fault = func(action k8stesting.Action) (before, after error) {
		note(action.GetVerb())
		return nil, nil
	}
	i := startInformer(t, s)
	note("watch") // startInformer waits for it; watches do not pass here
	l := configmap.New(s.CoreV1(), system, configmap.WithInformer(i))
	mustReplace(t, l, blocked("1", "a"))
	mustReplace(t, l, blocked("2", "a"))
	mustReplace(t, l, nil)
	requireMigrations(t, configmap.New(s.CoreV1(), system), nil)

	require.Len(t, s.allowed.Rules, 1)
	slices.Sort(used)
	require.ElementsMatch(t, s.allowed.Rules[0].Verbs, slices.Compact(used))
}
