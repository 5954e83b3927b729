package applier_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/vmquota/headroom/ledger/applier"
)

// conflict lets somebody else write before each of the next n updates.
func (s *scene) conflict(n int, write func(rq *corev1.ResourceQuota)) {
	s.before = func(verb string) error {
		if verb == "update" && n > 0 {
			n--
			s.edit("tenant/q", write)
		}
		return nil
	}
}

// A conflict is resolved by computing anew from a fresh quota, not by writing the old
// object again.
func TestConflict(t *testing.T) {
	for name, test := range map[string]struct {
		change func(rq *corev1.ResourceQuota)
		hard   string
		calls  []string
	}{
		"an edit of the limits":      {func(rq *corev1.ResourceQuota) { rq.Spec.Hard = list("limits.cpu=3") }, "limits.cpu=5", []string{"list", "update", "get", "update"}},
		"an edit of the labels":      {func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"a": "b"} }, "limits.cpu=5", []string{"list", "update", "get", "update"}},
		"less usage":                 {func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=3500m") }, "limits.cpu=5", []string{"list", "update", "get", "update"}},
		"now it fits":                {func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=3") }, "limits.cpu=4", []string{"list", "update", "get"}},
		"another replica was faster": {func(rq *corev1.ResourceQuota) { rq.Status.Hard = list("limits.cpu=5") }, "limits.cpu=5", []string{"list", "update", "get"}},
		"switched off":               {func(rq *corev1.ResourceQuota) { setAnnotation(rq, applier.DisabledAnnotation, "true") }, "limits.cpu=4", []string{"list", "update", "get"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			s.conflict(1, test.change)
			require.NoError(t, s.only().Err)
			require.Equal(t, test.hard, s.hard("q"))
			require.Equal(t, test.calls, s.calls())
		})
	}
}

func TestDeletedAfterAConflict(t *testing.T) {
	s := full(t)
	s.before = func(verb string) error {
		switch verb {
		case "update":
			s.use("q", "limits.cpu=3900m")
		case "get":
			delete(s.quotas, "tenant/q")
		}
		return nil
	}
	require.Empty(t, s.apply().Quotas)
}

// Conflicts without end are an error after some tries.
func TestConflictsWithoutEnd(t *testing.T) {
	s := full(t)
	n := 0
	s.conflict(1000, func(rq *corev1.ResourceQuota) {
		n++
		rq.Labels = map[string]string{"n": string(rune('a' + n))}
	})
	result, err := s.applier.Apply(s.ctx, "tenant")
	require.True(t, apierrors.IsConflict(err))
	require.Equal(t, applier.Unchanged, result.Quotas[0].Action)
	require.Equal(t, 5, n)
	require.Zero(t, s.updates)
}

// A cache that is behind does no harm: nothing is written over what it has not seen, and
// what this applier has written itself is not computed from an older version.
func TestCacheThatIsBehind(t *testing.T) {
	s := full(t)
	old := s.quota("q")
	cached := []*corev1.ResourceQuota{old}
	s.restart(func(c *applier.Config) {
		c.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) { return cached, nil }
	})
	s.write("q", "limits.cpu=3")
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, []string{"update", "get", "update"}, s.calls())
	require.Equal(t, "limits.cpu=5", s.hard("q"))
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Empty(t, s.calls())

	// The cache sees a recount, and does not see yet how it was undone.
	s.recount("limits.cpu=4")
	cached[0] = s.quota("q")
	require.Equal(t, applier.Raised, s.only().Action)
	for range 3 {
		require.Equal(t, applier.Unchanged, s.only().Action)
	}

	// A quota that is gone is in no result, whatever the cache says.
	s.inFlight()
	delete(s.quotas, "tenant/q")
	require.Empty(t, s.apply().Quotas)
	require.Empty(t, s.apply().Quotas)
}
