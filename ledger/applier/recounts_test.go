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
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=6")
	c, d := charged("c", "limits.cpu=1"), charged("d", "limits.cpu=1")
	s.inFlight(c, d)
	s.apply()
	require.Equal(t, "limits.cpu=6", s.hard("q"))
	b := blocked("b", "limits.cpu=1")
	s.inFlight(c, d, blocked("a", "limits.cpu=1"), b)
	s.apply()
	require.Equal(t, "limits.cpu=8", s.hard("q"))

	s.use("q", "limits.cpu=7")
	s.apply()
	s.recount("tenant/q", "limits.cpu=6") // a has come, and c has gone
	s.inFlight(c, d, charged("a", "limits.cpu=1"), b)
	r := s.only()
	require.Equal(t, "limits.cpu=7", s.hard("q")) // for b
	require.Equal(t, 100*time.Millisecond, r.RequeueAfter)

	s.inFlight(d, charged("a", "limits.cpu=1"), b)
	s.pass(r.RequeueAfter)
	s.apply()
	require.Equal(t, "limits.cpu=7", s.hard("q"))
}

// What a tenant deletes in the meantime is his again when the caches have caught up.
func TestADeletedPodMakesRoom(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=5")
	s.inFlight(charged("c", "limits.cpu=1"))
	s.apply()
	s.pass(time.Minute)
	s.apply()
	s.recount("tenant/q", "limits.cpu=4500m")
	s.apply()
	s.pass(100 * time.Millisecond)
	s.apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
}

// The API server charges a target pod before it stores it. kube-controller-manager may recount
// in between, and then does not count it before its next recount.
func TestATargetPodThatIsNotCountedMakesNoRoom(t *testing.T) {
	uncounted := func(t *testing.T, used string, ofPods ...quota.Migration) *scene {
		s := newScene(t)
		s.limit("q", "limits.cpu=4")
		s.use("q", "limits.cpu=4")
		s.inFlight(blocked("a", "limits.cpu=1"))
		s.apply()
		s.use("q", "limits.cpu=5")
		s.apply()
		s.recount("tenant/q", used)
		s.inFlight(ofPods...)
		s.apply()
		s.pass(time.Second)
		s.apply()
		return s
	}
	t.Run("not counted", func(t *testing.T) {
		s := uncounted(t, "limits.cpu=4", charged("a", "limits.cpu=1"))
		require.Equal(t, "limits.cpu=4", s.hard("q"))
		s.recount("tenant/q", "limits.cpu=5")
		s.apply()
		s.pass(time.Second)
		s.apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("counted, and a pod of the tenant's is gone", func(t *testing.T) {
		s := uncounted(t, "limits.cpu=4500m", charged("a", "limits.cpu=1"))
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
}
