package applier_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// life is what happens to a namespace with two quotas, step by step, each with what
// spec.hard must be after it.
var life = []struct {
	happens func(s *scene)
	cpu, q  string
}{
	{func(s *scene) { s.inFlight(blocked("a", "limits.cpu=1 pods=1")) }, "limits.cpu=5", "limits.cpu=5 pods=5"},
	{func(s *scene) {
		s.use("cpu", "limits.cpu=5")
		s.use("q", "limits.cpu=5 pods=5")
		s.inFlight(charged("a", "limits.cpu=1 pods=1"), blocked("b", "limits.cpu=2 pods=1"))
	}, "limits.cpu=7", "limits.cpu=7 pods=6"},
	{func(s *scene) { s.write("cpu", "limits.cpu=6") }, "limits.cpu=9", "limits.cpu=7 pods=6"},
	{func(s *scene) { s.write("q", "limits.cpu=4 pods=4") }, "limits.cpu=9", "limits.cpu=7 pods=6"},
	{func(s *scene) {
		s.use("cpu", "limits.cpu=6")
		s.use("q", "limits.cpu=6 pods=5")
		s.inFlight(charged("b", "limits.cpu=2 pods=1"))
	}, "limits.cpu=8", "limits.cpu=6 pods=5"},
	{func(s *scene) { s.inFlight() }, "limits.cpu=6", "limits.cpu=4 pods=4"},
}

// A process that dies between any two calls, or after one was carried out but not
// answered, leaves what a new one finishes right.
func TestCrashBetweenAnyTwoCalls(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		for call := 1; ; call++ {
			s := newScene(t)
			s.limit("cpu", "limits.cpu=4")
			s.limit("q", "limits.cpu=4 pods=4")
			s.use("cpu", "limits.cpu=4")
			s.use("q", "limits.cpu=4 pods=4")
			before := s.quota("q")
			crashed := s.crashAt(call, carriedOut)
			for i, step := range life {
				step.happens(s)
				if _, err := s.applier.Apply(s.ctx, "tenant"); err != nil {
					require.ErrorIs(t, err, errCrash)
					s.before, s.after = nil, nil
					s.restart()
					s.apply()
				}
				at := fmt.Sprintf("step %d, call %d, carried out: %v", i, call, carriedOut)
				require.Equal(t, jsonOf(t, list(step.cpu)), s.hard("cpu"), at)
				require.Equal(t, jsonOf(t, list(step.q)), s.hard("q"), at)
			}
			s.requireUntouched(before)
			require.Empty(t, s.quota("cpu").Annotations)
			if !crashed() {
				require.Greater(t, call, 2*len(life))
				break
			}
		}
	}
}

var errCrash = errors.New("crash")

// crashAt lets the call, and all that come after it, fail. Somebody else writes before
// some of the updates, so that there are conflicts as well.
func (s *scene) crashAt(call int, carriedOut bool) (crashed func() bool) {
	calls, updates := 0, 0
	s.before = func(verb string) error {
		if calls++; calls > call || calls == call && !carriedOut {
			return errCrash
		}
		if verb == "update" {
			if updates++; updates%3 == 1 {
				s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"n": fmt.Sprint(updates)} })
				s.edit("tenant/cpu", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"n": fmt.Sprint(updates)} })
			}
		}
		return nil
	}
	s.after = func(string) error {
		if calls >= call {
			return errCrash
		}
		return nil
	}
	return func() bool { return calls >= call }
}

// Without a crash the same life is finished right, which says that its figures are.
func TestLifeWithoutACrash(t *testing.T) {
	s := newScene(t)
	s.limit("cpu", "limits.cpu=4")
	s.limit("q", "limits.cpu=4 pods=4")
	s.use("cpu", "limits.cpu=4")
	s.use("q", "limits.cpu=4 pods=4")
	static := map[string]string{"cpu": "limits.cpu=4", "q": "limits.cpu=4 pods=4"}
	for i, step := range life {
		if i == 2 {
			static["cpu"] = "limits.cpu=6"
		}
		step.happens(s)
		s.apply()
		inFlight, err := s.record.Migrations(s.ctx, "tenant")
		require.NoError(t, err)
		for name, hard := range map[string]string{"cpu": step.cpu, "q": step.q} {
			if i == len(life)-1 {
				require.Equal(t, jsonOf(t, list(static[name])), jsonOf(t, list(hard)))
				continue
			}
			rule := quota.Effective(list(static[name]), inFlight, s.quota(name).Status.Used)
			require.Equal(t, jsonOf(t, rule), jsonOf(t, list(hard)), "step %d", i)
		}
	}
}
