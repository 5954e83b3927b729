package applier_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

func (s *scene) guard() string { return s.quota("q").Annotations[applier.GuardAnnotation] }

// guarded is a quota of 4 cores, of which 3 are used, and a blocked migration of 2.
func guarded(t tb) *scene {
	s := newScene(t)
	s.config.Guard = true
	s.restart()
	s.limit("q", "limits.cpu=4 pods=10")
	s.use("q", "limits.cpu=3 pods=1")
	s.inFlight(blocked("a", "limits.cpu=2 pods=1"))
	return s
}

// What regular workloads may bring usage to is published with the raise, follows what the
// migration holds, and is gone with the raise.
func TestGuard(t *testing.T) {
	s := guarded(t)
	before := s.quota("q")
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, 1, s.updates, "it is published by the update that raises")
	require.Equal(t, `{"limits.cpu":"6","pods":"11"}`, s.hard("q"))
	require.Equal(t, `{"limits.cpu":"4","pods":"10"}`, s.guard())

	// The target pod is charged before the ledger says so. Usage is above the limit.
	s.use("q", "limits.cpu=5 pods=2")
	require.Equal(t, applier.Unchanged, s.only().Action)
	require.Equal(t, `{"limits.cpu":"4","pods":"10"}`, s.guard())

	// Now it does, and the limit is as far above usage as static is above regular usage.
	s.inFlight(charged("a", "limits.cpu=2 pods=1"))
	require.Equal(t, applier.Recorded, s.only().Action)
	require.Equal(t, `{"limits.cpu":"6","pods":"11"}`, s.guard())
	require.Equal(t, `{"limits.cpu":"6","pods":"11"}`, s.hard("q"))
	require.Equal(t, applier.Unchanged, s.only().Action)

	// Another one is blocked: the limits rise, and what is for regular workloads stays.
	s.inFlight(charged("a", "limits.cpu=2 pods=1"), blocked("b", "limits.cpu=2 pods=1"))
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"8","pods":"12"}`, s.hard("q"))
	require.Equal(t, `{"limits.cpu":"6","pods":"11"}`, s.guard())

	s.inFlight()
	s.use("q", "limits.cpu=3 pods=1")
	require.Equal(t, applier.Restored, s.only().Action)
	s.requireUntouched(before)
	require.Equal(t, 4, s.updates)
}

// Without Config.Guard the same costs the two writes that it always did.
func TestNoGuard(t *testing.T) {
	s := guarded(t)
	s.config.Guard = false
	s.restart()
	s.apply()
	s.use("q", "limits.cpu=5 pods=2")
	s.inFlight(charged("a", "limits.cpu=2 pods=1"))
	s.apply()
	require.Empty(t, s.guard())
	require.Equal(t, 1, s.updates)
}

// Held surge that is not in the usage makes no room: a pod has ended, and the ledger has
// not heard of it.
func TestGuardBehindUsage(t *testing.T) {
	s := guarded(t)
	s.inFlight(charged("a", "limits.cpu=2 pods=1"))
	s.use("q", "limits.cpu=1 pods=1")
	s.inFlight(charged("a", "limits.cpu=2 pods=1"), blocked("b", "limits.cpu=9 pods=1"))
	s.apply()
	require.Equal(t, `{"limits.cpu":"5","pods":"11"}`, s.guard())
}

// Whoever changes or removes the annotation changes it for as long as it takes to look.
// Switching the guard off removes it.
func TestGuardIsKept(t *testing.T) {
	s := guarded(t)
	s.apply()
	for _, value := range []string{"", `{"limits.cpu":"100"}`, "?"} {
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) { setAnnotation(rq, applier.GuardAnnotation, value) })
		require.Equal(t, applier.Recorded, s.only().Action)
		require.Equal(t, `{"limits.cpu":"4","pods":"10"}`, s.guard())
	}
	s.config.Guard = false
	s.restart()
	require.Equal(t, applier.Recorded, s.only().Action)
	require.NotContains(t, s.quota("q").Annotations, applier.GuardAnnotation)
	require.Equal(t, `{"limits.cpu":"6","pods":"11"}`, s.hard("q"))
}

// Whatever is in flight and whatever is used: a regular workload that fits what the
// annotation says fits what the rule leaves, when usage and ledger agree.
func TestGuardIsTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := guarded(t)
		cores := rapid.IntRange(0, 9)
		var migrations []quota.Migration
		held := 0
		for _, uid := range []types.UID{"a", "b", "c"} {
			m := blocked("", "")
			m.UID, m.Surge = uid, cpu(cores.Draw(t, "surge"))
			if rapid.Bool().Draw(t, "charged") {
				m.State = quota.Charged
				q := m.Surge["limits.cpu"]
				held += int(q.AsApproximateFloat64())
			}
			migrations = append(migrations, m)
		}
		used := held + cores.Draw(t, "regular")
		s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = cpu(used) })
		s.inFlight(migrations...)
		s.apply()
		if s.guard() == "" {
			return // it is not raised
		}
		var limits map[string]string
		require.NoError(t, jsonInto(s.guard(), &limits))
		decision := quota.Policy{}.Decide(list("limits.cpu=4 pods=10"), migrations, cpu(used))
		available, limit := decision.Available["limits.cpu"], list("limits.cpu=" + limits["limits.cpu"])["limits.cpu"]
		room := max(0, limit.AsApproximateFloat64()-float64(used))
		require.InDelta(t, available.AsApproximateFloat64(), room, 1e-9)
	})
}

func cpu(cores int) corev1.ResourceList {
	return corev1.ResourceList{"limits.cpu": *resource.NewQuantity(int64(cores), resource.DecimalSI)}
}
