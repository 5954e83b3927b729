package applier_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// switches are the kill switches.
var switches = map[string]func(s *scene, off bool){
	"one quota": func(s *scene, off bool) {
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
			if delete(rq.Annotations, applier.DisabledAnnotation); off {
				setAnnotation(rq, applier.DisabledAnnotation, "true")
			}
		})
	},
	"one quota, by another annotation": func(s *scene, off bool) {
		s.config.DisabledFor = func(rq *corev1.ResourceQuota) bool { return rq.Name == "q" && rq.Annotations["skip"] == "true" }
		s.restart()
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
			if delete(rq.Annotations, "skip"); off {
				setAnnotation(rq, "skip", "true")
			}
		})
	},
	"all": func(s *scene, off bool) {
		s.config.Disabled = func() bool { return off }
		s.restart()
	},
}

func TestDisabledGrantsNothing(t *testing.T) {
	for name, set := range switches {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			set(s, true)
			result := s.only()
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, []quota.Deferral{{UID: "a", Reason: applier.Disabled}}, result.Decision.Deferred)
			require.Empty(t, result.Decision.Granted)
			require.Zero(t, s.updates)
			require.Equal(t, []string{"HeadroomDeferred"}, s.reasons())

			s.use("q", "limits.cpu=5") // as if it had come to run all the same
			s.inFlight(charged("a", "limits.cpu=1"))
			require.Equal(t, applier.Unchanged, s.only().Action)
			s.use("q", "limits.cpu=4")
			s.inFlight(blocked("a", "limits.cpu=1"))
			set(s, false)
			require.Equal(t, applier.Raised, s.only().Action)
		})
	}
}

// Switched off in mid-flight: what is charged stays covered, nothing new is granted, and
// the end is static.
func TestDisabledInMidFlight(t *testing.T) {
	for name, set := range switches {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.limit("q", "limits.cpu=4")
			s.use("q", "limits.cpu=5")
			s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"))
			s.apply()
			require.Equal(t, `{"limits.cpu":"6"}`, s.hard("q"))
			set(s, true)
			result := s.only()
			require.Equal(t, applier.Lowered, result.Action)
			require.Equal(t, reasons{"b": applier.Disabled}, reasonsOf(result))
			require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))

			s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"), blocked("c", "limits.cpu=1"))
			result = s.only()
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, []types.UID{"a"}, result.Decision.Granted)
			require.Len(t, result.Decision.Deferred, 2)

			s.inFlight(blocked("b", "limits.cpu=1"))
			s.use("q", "limits.cpu=4")
			require.Equal(t, applier.Restored, s.only().Action)
			set(s, false)
			s.inFlight()
			require.Empty(t, s.apply().Quotas)
			require.Equal(t, `{"limits.cpu":"4"}`, s.hard("q"))
			require.Empty(t, s.quota("q").Annotations)
		})
	}
}

// Who switches it off and sets the limits himself has the last word.
func TestDisabledDoesNotUndoAReset(t *testing.T) {
	for name, set := range switches {
		for _, by := range []string{"limits.cpu=4", "limits.cpu=3"} {
			t.Run(name+" "+by, func(t *testing.T) {
				s := full(t)
				s.apply()
				s.use("q", "limits.cpu=5")
				s.inFlight(charged("a", "limits.cpu=1"))
				set(s, true)
				s.write("q", by)
				require.Equal(t, applier.Restored, s.only().Action)
				require.Equal(t, jsonOf(t, list(by)), s.hard("q"))
				require.Equal(t, applier.Unchanged, s.only().Action)
			})
		}
	}
}

// One quota that is switched off does not open room in another for a target pod that it
// has no room for itself; but one that it has room for is granted in the other.
func TestDisabledBesideAnother(t *testing.T) {
	s := full(t)
	switches["one quota"](s, true)
	s.limit("other", "pods=4")
	s.use("other", "pods=4")
	s.inFlight(blocked("a", "limits.cpu=1 pods=1"), blocked("b", "pods=1"))
	result := s.apply()
	require.Equal(t, `{"pods":"5"}`, s.hard("other"))
	require.Equal(t, []types.UID{"b"}, result.Quotas[0].Decision.Granted)
	require.Equal(t, []quota.Deferral{{UID: "a", Reason: applier.Disabled}}, result.Quotas[1].Decision.Deferred)

	s.use("q", "limits.cpu=3")
	result = s.apply()
	require.Equal(t, `{"pods":"6"}`, s.hard("other"))
	require.Empty(t, result.Quotas[1].Decision.Deferred)
	require.Equal(t, `{"limits.cpu":"4"}`, s.hard("q"))
}

// What it has room for is not deferred, whatever else the quota is short of.
func TestDisabledDefersWhatLacksRoomOnly(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4 pods=4")
	s.use("q", "limits.cpu=6 pods=3")
	switches["one quota"](s, true)
	s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "pods=1"), blocked("c", "pods=1"))
	require.Equal(t, reasons{"c": applier.Disabled}, reasonsOf(s.only()))
}
