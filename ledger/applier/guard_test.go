package applier_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// guarded is a scene with Config.Guard, a full quota and a blocked migration.
func guarded(t tb) *scene {
	s := full(t)
	s.restart(func(c *applier.Config) { c.Guard = true })
	return s
}

func (s *scene) isAnnotated() bool {
	_, ok := s.quota("q").Annotations[applier.OfferAnnotation]
	return ok
}

// The annotation comes 20 ms before the room, with a status.hard that is one unit above
// spec.hard, and goes when the pod is charged.
func TestGuard(t *testing.T) {
	s := guarded(t)
	r := s.only()
	require.Equal(t, applier.Announced, r.Action)
	require.Equal(t, "limits.cpu=4001m", amountsOf(r.Hard))
	require.Equal(t, "limits.cpu=5", amountsOf(r.Effective))
	require.Empty(t, r.Offered)
	require.Equal(t, 20*time.Millisecond, r.RequeueAfter)
	require.True(t, s.isAnnotated())
	require.Equal(t, 20*time.Millisecond, s.only().RequeueAfter, "the caches show it")

	r = s.pass(19 * time.Millisecond).only()
	require.Equal(t, applier.Unchanged, r.Action)
	require.Equal(t, time.Millisecond, r.RequeueAfter)
	s.pass(time.Millisecond).expect(applier.Raised, "limits.cpu=5")
	require.True(t, s.isAnnotated())

	s.use("q", "limits.cpu=5")
	s.inFlight(charged("a", "limits.cpu=1")).expect(applier.Announced, "limits.cpu=5")
	require.False(t, s.isAnnotated())
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Equal(t, []string{"Announced q", "Raised q", "Announced q"}, s.counted())
}

// The caches of the admission policy may be as late as those of this process: it takes three
// times as long as these took, and half a second at most.
func TestGuardOnABusyAPIServer(t *testing.T) {
	for late, lead := range map[time.Duration]time.Duration{
		5 * time.Millisecond: 20 * time.Millisecond, 50 * time.Millisecond: 150 * time.Millisecond, 300 * time.Millisecond: 500 * time.Millisecond,
	} {
		s := guarded(t)
		cached := s.quota("q")
		s.config.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) {
			return []*corev1.ResourceQuota{cached}, nil
		}
		s.restart()
		announced := func() {
			require.Equal(t, applier.Announced, s.only().Action)
			s.pass(late / 2)
			s.apply() // for another reason: the caches are behind
			s.pass(late - late/2)
			cached = s.quota("q")
			r := s.only()
			require.Equal(t, applier.Unchanged, r.Action)
			require.Equal(t, lead-late, r.RequeueAfter)
		}
		announced()
		s.pass(lead - late - 1)
		require.Equal(t, time.Duration(1), s.only().RequeueAfter)
		require.Equal(t, applier.Raised, s.pass(1).only().Action)
		s.recount("limits.cpu=4")
		cached = s.quota("q")
		announced()
	}
}

// A recount ends the guard, because the admission policy asks for a status.hard above
// spec.hard. So what comes after it is in two steps again.
func TestGuardAndARecount(t *testing.T) {
	for name, passed := range map[string]time.Duration{"between the steps": 10 * time.Millisecond, "during the offer": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := guarded(t)
			s.apply()
			s.pass(passed).apply()
			s.recount("limits.cpu=4")
			require.True(t, s.isAnnotated())
			r := s.only()
			require.Equal(t, applier.Announced, r.Action)
			require.Equal(t, "limits.cpu=4001m", s.hard("q"))
			require.Equal(t, 20*time.Millisecond, r.RequeueAfter)
			s.apply()
			s.pass(20*time.Millisecond).expect(applier.Raised, "limits.cpu=5")
		})
	}
}

// Where charged migrations are on top the limit is above spec.hard already; and a further
// offer needs no second announcement.
func TestGuardBesideOthers(t *testing.T) {
	s := guarded(t)
	s.use("q", "limits.cpu=5")
	s.inFlight(charged("c", "limits.cpu=1")).apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
	require.False(t, s.isAnnotated())

	s.inFlight(charged("c", "limits.cpu=1"), blocked("a", "limits.cpu=1")).expect(applier.Announced, "limits.cpu=5")
	s.apply()
	s.pass(20 * time.Millisecond).apply()
	require.Equal(t, "limits.cpu=6", s.hard("q"))
	s.inFlight(charged("c", "limits.cpu=1"), blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"))
	s.expect(applier.Raised, "limits.cpu=7")
}

// The source pod of c has ended and kube-controller-manager has recounted, but the caches do
// not show it yet. No room is made for c that nobody guards.
func TestGuardWhileTheCachesAreBehind(t *testing.T) {
	start := func(t *testing.T) *scene {
		s := guarded(t)
		s.use("q", "limits.cpu=5")
		s.inFlight(charged("c", "limits.cpu=1"), blocked("a", "limits.cpu=1")).apply()
		s.apply()
		s.pass(20 * time.Millisecond).apply()
		require.Equal(t, "limits.cpu=6", s.hard("q"))
		s.recount("limits.cpu=4")
		return s
	}
	t.Run("the offer goes on", func(t *testing.T) {
		s := start(t)
		s.expect(applier.Announced, "limits.cpu=4001m")
		require.True(t, s.isAnnotated())
		s.inFlight(blocked("a", "limits.cpu=1")).apply()
		s.pass(20 * time.Millisecond).apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("the offer is over", func(t *testing.T) {
		s := start(t)
		require.Equal(t, 100*time.Millisecond, s.inFlight(charged("c", "limits.cpu=1")).only().RequeueAfter)
		require.Equal(t, "limits.cpu=4", s.hard("q"))
		s.inFlight().apply()
		require.Equal(t, "limits.cpu=4", s.hard("q"))
		require.False(t, s.isAnnotated())
	})
}

// What an offer that is left behind is cleaned of, also without any migration.
func TestAnAnnotationThatIsLeft(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "")
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) { setAnnotation(rq, applier.OfferAnnotation, "open") })
	require.Equal(t, applier.Announced, s.only().Action)
	require.Empty(t, s.quota("q").Annotations)
	require.Empty(t, s.apply().Quotas)
}

// The unit is of a resource of which nobody wants so little, if there is one.
func TestTheUnit(t *testing.T) {
	for limits, unit := range map[string]string{
		"limits.cpu=4 limits.memory=4Gi pods=4":  "limits.cpu=4 limits.memory=4294967297 pods=4",
		"requests.cpu=4 pods=4":                  "pods=4 requests.cpu=4001m",
		"requests.storage=1Gi requests.memory=1": "requests.memory=2 requests.storage=1Gi",
		"pods=4":                                 "pods=5",
		"count/pods=7 pods=4":                    "count/pods=8 pods=4",
	} {
		s := sceneOf(t, limits, "", func(c *applier.Config) { c.Guard = true })
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = rq.Spec.Hard.DeepCopy() })
		s.inFlight(quota.Migration{UID: "a", Surge: list("limits.cpu=2 requests.cpu=2 requests.memory=2 limits.memory=2 pods=2 count/pods=2")})
		require.Equal(t, applier.Announced, s.only().Action)
		require.Equal(t, unit, s.hard("q"))
	}
}
