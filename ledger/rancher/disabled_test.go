package rancher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
)

func TestSwitches(t *testing.T) {
	for value, off := range map[string]bool{"": false, "0": false, "false": false, "F": false, "1": true, "true": true, "yes": true} {
		t.Setenv(rancher.DisabledVariable, value)
		s := newStore(t)
		require.Equal(t, off, s.shim.Disabled(), value)
		s.off = true
		require.True(t, s.shim.Disabled())
	}
	require.Equal(t, "HEADROOM_RANCHER_DISABLED", rancher.DisabledVariable)
}

// Switched off, reads show what is stored, and the next write of the static limits leaves
// no trace of a raise.
func TestSwitchedOffIsAPassThrough(t *testing.T) {
	s := inProgress(t)
	s.off = true
	require.Equal(t, jsonOf(t, s.stored()), jsonOf(t, s.shown()))
	rq := s.stored()
	require.Same(t, rq, s.shim.Shown(rq))
	inner := watch.NewFake()
	go inner.Add(rq)
	require.Same(t, rq, (<-s.shim.Watch(inner).ResultChan()).Object.(*corev1.ResourceQuota))
	_, err := s.patch(jsonPatch, `[{"op":"test","path":"/spec/hard/limits.cpu","value":"5"}]`)
	require.NoError(t, err)

	_, err = s.write(s.shown(), "limits.cpu=4 pods=9")
	require.NoError(t, err)
	require.Equal(t, jsonOf(t, quotaOf("limits.cpu=4 pods=9").Spec), jsonOf(t, s.stored().Spec))
	require.Empty(t, s.stored().Annotations)

	_, err = s.decorated.Update(ctx, s.shown(), metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, s.decorated.Delete(ctx, "q", metav1.DeleteOptions{}))
	_, err = s.decorated.Create(ctx, quotaOf("limits.cpu=4"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=4", amounts(s.stored().Spec.Hard))
}

// The applier has the same switch. It raises nothing any more, and restores what Rancher
// does not manage as soon as nothing is charged.
func TestSwitchedOffTheApplierRestores(t *testing.T) {
	s := inProgress(t)
	s.off = true
	a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch})
	require.NoError(t, err)
	s.inFlight(charged("m1", "limits.cpu=1 pods=1"), blocked("m2", "limits.cpu=1 pods=1"))
	_, err = a.Apply(ctx, "tenant")
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=5 pods=10", amounts(s.stored().Spec.Hard))
	s.inFlight()
	_, err = a.Apply(ctx, "tenant")
	require.NoError(t, err)
	s.off = false
	s.requireStored("limits.cpu=4 pods=9", "limits.cpu=4 pods=9")
}

func TestSwitchedOnAgainTheRaiseIsBack(t *testing.T) {
	s := inProgress(t)
	s.off = true
	_, err := s.write(s.shown(), "limits.cpu=4 pods=9")
	require.NoError(t, err)
	s.off = false
	a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch})
	require.NoError(t, err)
	_, err = a.Apply(ctx, "tenant")
	require.NoError(t, err)
	s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
}
