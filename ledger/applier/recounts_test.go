package applier_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/quota"
)

// A source pod has ended and was recounted, and the caches do not show it. Whatever makes a
// write urgent, regular pods get no more room than they had.
func TestAnEndedPodInTheCachesMakesNoRoom(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=6")
	c, d := charged("c", "limits.cpu=1"), charged("d", "limits.cpu=1")
	s.inFlight(c, d).apply()
	require.Equal(t, "limits.cpu=6", s.hard("q"))
	b := blocked("b", "limits.cpu=1")
	s.inFlight(c, d, blocked("a", "limits.cpu=1"), b).apply()
	require.Equal(t, "limits.cpu=8", s.hard("q"))

	s.recount("limits.cpu=6") // a has come, and c has gone
	r := s.inFlight(c, d, charged("a", "limits.cpu=1"), b).only()
	require.Equal(t, "limits.cpu=7", s.hard("q")) // for b
	require.Equal(t, 100*time.Millisecond, r.RequeueAfter)

	s.inFlight(d, charged("a", "limits.cpu=1"), b)
	s.pass(r.RequeueAfter).apply()
	require.Equal(t, "limits.cpu=7", s.hard("q"))
}

// A target pod that comes after a recount is no regular one, and takes nobody's room.
func TestATargetPodAfterARecount(t *testing.T) {
	s := sceneOf(t, "limits.cpu=5", "limits.cpu=6")
	d, b := charged("d", "limits.cpu=1"), blocked("b", "limits.cpu=2")
	s.inFlight(charged("c", "limits.cpu=1"), d).apply()
	s.recount("limits.cpu=5")
	s.inFlight(d, blocked("a", "limits.cpu=2"), b).apply()
	require.Equal(t, "limits.cpu=10", s.hard("q"))
	s.use("q", "limits.cpu=7")
	s.inFlight(d, charged("a", "limits.cpu=2"), b)
	require.Equal(t, "limits.cpu=10", amountsOf(s.only().Effective)) // one is left to regular pods
}

// What a tenant deletes in the meantime is his again when the caches have caught up.
func TestADeletedPodMakesRoom(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=5")
	s.inFlight(charged("c", "limits.cpu=1")).apply()
	s.pass(time.Minute).apply()
	s.recount("limits.cpu=4500m").apply()
	s.pass(100 * time.Millisecond).apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
}

// The API server charges a target pod before it stores it. kube-controller-manager may recount
// in between, and then does not count it before its next recount.
func TestATargetPodThatIsNotCountedMakesNoRoom(t *testing.T) {
	uncounted := func(t *testing.T, used string, ofPods ...quota.Migration) *scene {
		s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
		s.inFlight(blocked("a", "limits.cpu=1")).apply()
		s.use("q", "limits.cpu=5").apply()
		s.recount(used)
		s.inFlight(ofPods...)
		for range 3 {
			s.apply()
			s.pass(time.Second)
		}
		return s
	}
	t.Run("not counted", func(t *testing.T) {
		s := uncounted(t, "limits.cpu=4", charged("a", "limits.cpu=1"))
		require.Equal(t, "limits.cpu=4", s.hard("q"))
		s.recount("limits.cpu=5").apply()
		s.pass(time.Second).apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("not counted for longer than kube-controller-manager takes", func(t *testing.T) {
		s := uncounted(t, "limits.cpu=4", charged("a", "limits.cpu=1"))
		s.pass(s.only().RequeueAfter)
		for range 2 {
			s.apply()
			s.pass(time.Second)
		}
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("not counted, and a pod of the tenant's comes", func(t *testing.T) {
		s := sceneOf(t, "limits.cpu=5", "limits.cpu=4500m")
		s.inFlight(blocked("a", "limits.cpu=1")).apply()
		s.recount("limits.cpu=4500m")
		s.inFlight(charged("a", "limits.cpu=1")).apply()
		s.use("q", "limits.cpu=4800m")
		for range 3 {
			s.apply()
			s.pass(time.Second)
		}
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("counted, and a pod of the tenant's is gone", func(t *testing.T) {
		s := uncounted(t, "limits.cpu=4500m", charged("a", "limits.cpu=1"))
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
}
