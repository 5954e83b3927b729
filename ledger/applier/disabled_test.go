package applier_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
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
		s.restart(func(c *applier.Config) {
			c.DisabledFor = func(rq *corev1.ResourceQuota) bool { return rq.Name == "q" && rq.Annotations["skip"] == "true" }
		})
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
			if delete(rq.Annotations, "skip"); off {
				setAnnotation(rq, "skip", "true")
			}
		})
	},
	"all": func(s *scene, off bool) {
		s.restart(func(c *applier.Config) { c.Disabled = func() bool { return off } })
	},
}

// Switched off means hands off: nothing is written, in whatever phase, and
// kube-controller-manager restores.
func TestDisabled(t *testing.T) {
	for name, set := range switches {
		for phase, before := range map[string]func(s *scene){
			"nothing raised": func(*scene) {},
			"an offer open":  func(s *scene) { s.apply() },
			"announced": func(s *scene) {
				s.restart(func(c *applier.Config) { c.Guard = true })
				s.apply()
			},
			"charged": func(s *scene) {
				s.apply()
				s.use("q", "limits.cpu=5")
				s.inFlight(charged("a", "limits.cpu=1")).apply()
			},
			"over": func(s *scene) {
				s.apply()
				s.inFlight()
			},
		} {
			t.Run(name+", "+phase, func(t *testing.T) {
				s := full(t)
				before(s)
				set(s, true)
				was, updates := s.quota("q"), s.updates
				for range 3 {
					for _, q := range s.apply().Quotas {
						require.Equal(t, applier.Unchanged, q.Action)
						require.Equal(t, "a kill switch is on: hands off", q.Why)
						require.Empty(t, q.Offered)
					}
					s.pass(time.Minute)
				}
				require.Equal(t, updates, s.updates)
				s.requireUntouched(was)

				set(s, false)
				s.recount("limits.cpu=4")
				s.inFlight(blocked("a", "limits.cpu=1")).apply()
				s.apply()
				s.pass(20 * time.Millisecond).apply()
				require.Equal(t, "limits.cpu=5", s.hard("q"))
			})
		}
	}
}

func TestDisabledIsTold(t *testing.T) {
	s := full(t)
	switches["one quota"](s, true)
	require.Equal(t, "a Disabled", deferrals(s.only()))
	require.Equal(t, []string{"Normal HeadroomDeferred Live migrations wait for room: of vm-a: headroom is switched off for this quota."}, s.events)
}

// One quota that is switched off does not open room in another for a target pod that it
// has no room for itself; but one that it has room for is offered some in the other.
func TestDisabledBesideAnother(t *testing.T) {
	s := full(t)
	switches["one quota"](s, true)
	s.limit("other", "pods=4", "pods=4")
	s.inFlight(blocked("a", "limits.cpu=1 pods=1"), blocked("b", "pods=1"))
	result := s.apply()
	require.Equal(t, "pods=5", s.hard("other"))
	require.Equal(t, []types.UID{"b"}, result.Quotas[0].Offered)
	require.Equal(t, "a Disabled", deferrals(result.Quotas[1]))

	s.use("q", "limits.cpu=3")
	result = s.apply()
	require.Equal(t, "pods=6", s.hard("other"))
	require.Empty(t, deferrals(result.Quotas[1]))
	require.Equal(t, "limits.cpu=4", s.hard("q"))
}

// What it has room for is not deferred, whatever else the quota is short of.
func TestDisabledDefersWhatLacksRoomOnly(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4 pods=4", "limits.cpu=6 pods=3")
	switches["one quota"](s, true)
	s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "pods=1"), blocked("c", "limits.cpu=1"))
	require.Equal(t, "c Disabled", deferrals(s.only()))
}
