package applier_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A regular workload takes the room of an offer. That does not lift the limit, but as much
// as one migration charges is forgiven, once.
func TestTaken(t *testing.T) {
	s := full(t)
	s.apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
	r := s.use("q", "limits.cpu=5").only()
	require.Equal(t, applier.Unchanged, r.Action) // it may be the target pod
	require.Nil(t, r.Taken)

	require.Equal(t, applier.Restored, s.pass(time.Second).only().Action)
	r = s.only()
	require.Equal(t, "limits.cpu=1", amountsOf(r.Taken))
	require.Empty(t, deferrals(r))
	require.Empty(t, s.reasons())
	require.Equal(t, time.Second, r.RequeueAfter)
	s.pass(999 * time.Millisecond).apply()
	require.Empty(t, s.reasons())
	s.pass(time.Millisecond)
	s.counted()
	s.apply()
	require.Equal(t, []string{"Warning HeadroomTaken Regular workloads have taken room that was open for live migrations: limits.cpu=1 above the static limits."}, s.events)
	require.Contains(t, s.counted(), "Taken q limits.cpu=1")
	s.reasons()

	// Forgiven: another offer, and that is the last.
	s.pass(time.Second).apply()
	require.Equal(t, "limits.cpu=6", s.hard("q"))
	require.Equal(t, applier.Unchanged, s.use("q", "limits.cpu=6").only().Action)
	require.Equal(t, applier.Restored, s.pass(time.Second).only().Action)
	s.apply()
	s.pass(time.Second)
	require.Equal(t, "limits.cpu=2", amountsOf(s.only().Taken))
	for range 20 {
		r = s.only()
		require.Equal(t, applier.Unchanged, r.Action)
		require.Equal(t, "a RegularAboveStatic limits.cpu=1", deferrals(r))
		s.pass(time.Minute)
	}
	require.Contains(t, s.counted(), "Taken q limits.cpu=1") // more
	require.Equal(t, "limits.cpu=4", s.hard("q"))

	// It ends when usage falls.
	s.use("q", "limits.cpu=5500m")
	require.Equal(t, "limits.cpu=1500m", amountsOf(s.only().Taken))
	r = s.use("q", "limits.cpu=4").only()
	require.Nil(t, r.Taken)
	require.Equal(t, applier.Raised, r.Action)
	require.Equal(t, "limits.cpu=5", s.hard("q"))
}

// A recount is seen before the end of the migration whose pod has ended: usage seems to fall,
// and then to rise again. That makes nothing of what was taken legitimate.
func TestTakenSurvivesCachesThatLag(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=5")
	c, a := charged("c", "limits.cpu=1"), blocked("a", "limits.cpu=1")
	s.inFlight(c, a).apply()
	s.use("q", "limits.cpu=6") // not a
	s.pass(time.Second)
	require.Equal(t, "limits.cpu=1", amountsOf(s.only().Taken))

	require.Nil(t, s.recount("limits.cpu=5").only().Taken)
	s.pass(50 * time.Millisecond).inFlight(a)
	require.Equal(t, "limits.cpu=1", amountsOf(s.only().Taken))
	for range 10 {
		s.pass(time.Minute).apply()
		s.take()
	}
	require.LessOrEqual(t, amountsOf(s.quota("q").Status.Used), "limits.cpu=6")
}

// What was taken is remembered and told without any migration in flight, too.
func TestTakenByTheLast(t *testing.T) {
	s := full(t)
	s.apply()
	s.use("q", "limits.cpu=5")
	s.inFlight().apply()
	s.apply()
	s.pass(time.Second)
	require.Equal(t, "limits.cpu=1", amountsOf(s.only().Taken))
	require.Equal(t, []string{"HeadroomTaken"}, s.reasons())
	s.pass(time.Hour)
	require.Equal(t, "limits.cpu=1", amountsOf(s.only().Taken))
	s.inFlight(blocked("a", "limits.cpu=500m"))
	require.Equal(t, "a RegularAboveStatic limits.cpu=500m", deferrals(s.only()))
	s.inFlight()
	require.Empty(t, s.use("q", "limits.cpu=4").apply().Quotas)
}

// A target pod is charged before any cache shows it. That is not taken, however late.
func TestATargetPodAheadOfTheCaches(t *testing.T) {
	for _, late := range []time.Duration{time.Millisecond, 900 * time.Millisecond, 1500 * time.Millisecond} {
		s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
		s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"), blocked("c", "limits.cpu=1")).apply()
		s.use("q", "limits.cpu=6")
		for range 2 {
			r := s.only()
			require.Empty(t, deferrals(r))
			s.pass(late / 2)
		}
		s.inFlight(charged("a", "limits.cpu=1"), charged("b", "limits.cpu=1"), blocked("c", "limits.cpu=1")).apply()
		s.apply()
		require.Nil(t, s.pass(time.Minute).only().Taken)
		require.Empty(t, s.reasons())
	}
}

// Regular usage above static lifts the limit if it was there before, because static was
// lowered or a quota is new, or if it grows when there is no room: overhead has grown in the
// target pods.
func TestWhatWasThereBeforeLifts(t *testing.T) {
	t.Run("static is lowered before", func(t *testing.T) {
		s := full(t)
		s.write("q", "limits.cpu=2")
		s.recount("limits.cpu=4").apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
	})
	t.Run("static is lowered during an offer", func(t *testing.T) {
		s := full(t)
		s.apply()
		s.write("q", "limits.cpu=2")
		s.recount("limits.cpu=4").apply()
		require.Equal(t, "limits.cpu=5", s.hard("q"))
		s.pass(time.Second).apply()
		require.Equal(t, "limits.cpu=2", s.hard("q"))
		require.Nil(t, s.only().Taken)
	})
	t.Run("overhead grows in a drain", func(t *testing.T) {
		s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
		used := 4000
		for i := range 20 { // in all, more than one migration charges
			uid, surge := types.UID(fmt.Sprint(i)), "limits.cpu=600m"
			s.pass(time.Minute).inFlight(blocked(uid, surge)).apply()
			require.Equal(t, fmt.Sprintf("limits.cpu=%s", milli(used+600)), s.hard("q"))
			s.use("q", "limits.cpu="+milli(used+600))
			s.inFlight(charged(uid, surge)).apply()
			s.pass(10 * time.Second)
			used += 100                                                             // of the 600 that the target pod charges, the source charged 500
			require.Empty(t, s.inFlight(blocked(uid+"next", surge)).only().Offered) // the source is not recounted yet
			s.pass(10 * time.Millisecond)
			r := s.recount("limits.cpu=" + milli(used)).only()
			require.Empty(t, r.Offered) // not before that has stood for a second
			require.Equal(t, "regular usage has just risen above static: no offer before it has settled", r.Why)
			require.Len(t, s.pass(r.RequeueAfter).only().Offered, 1)
		}
		require.Empty(t, s.reasons())
	})
}

func milli(n int) string {
	q := resource.NewMilliQuantity(int64(n), resource.DecimalSI)
	return q.String()
}

// While something is taken there is one offer at a time, so that it cannot be taken of many.
func TestOffersAreAloneWhileSomethingIsTaken(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
	a, b := blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")
	require.Len(t, s.inFlight(a, b).only().Offered, 2)
	s.use("q", "limits.cpu=5")
	s.pass(time.Second).apply()
	s.apply()
	require.Len(t, s.pass(2*time.Second).only().Offered, 1)
	require.Equal(t, "limits.cpu=6", s.hard("q"))
}

func TestTakenUsesUpTheBudget(t *testing.T) {
	s := full(t)
	s.policy = quota.Policy{Budget: list("limits.cpu=1500m")}
	s.apply()
	s.use("q", "limits.cpu=5")
	s.pass(time.Second).apply()
	s.pass(time.Minute)
	require.Equal(t, "a BudgetUsed limits.cpu=500m", deferrals(s.only()))
	require.Equal(t, "limits.cpu=4", s.hard("q"))
}

// With Strict nothing above static lifts, and nothing is forgiven; but the target pod of an
// open offer is no theft.
func TestStrict(t *testing.T) {
	s := full(t)
	s.policy = quota.Policy{Strict: true}
	require.Len(t, s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")).only().Offered, 2)
	require.Len(t, s.use("q", "limits.cpu=5").only().Offered, 2)
	require.Len(t, s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")).only().Offered, 1)
	require.Equal(t, "limits.cpu=6", s.hard("q"))
	s.use("q", "limits.cpu=5100m")
	s.pass(time.Second).apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
	s.pass(time.Minute)
	require.Equal(t, "b RegularAboveStatic limits.cpu=100m", deferrals(s.only()))
}

// A1: a tenant hot-plugs its virtual machine beyond static, and takes whatever it sees. The
// target can never come, so there is nothing to see.
func TestHotPlugMintsNothing(t *testing.T) {
	s := sceneOf(t, "limits.cpu=2", "limits.cpu=1")
	a := blocked("a", "limits.cpu=1")
	a.Growth = list("limits.cpu=2")
	s.inFlight(a)
	for range 600 {
		s.apply()
		s.take()
		s.pass(100 * time.Millisecond)
	}
	require.Equal(t, "limits.cpu=2", s.hard("q"))
	require.Equal(t, "limits.cpu=2", amountsOf(s.quota("q").Status.Used))
}

// take uses up all that there is room for.
func (s *scene) take() {
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
		for name, hard := range rq.Status.Hard {
			if used := rq.Status.Used[name]; hard.Cmp(used) > 0 {
				rq.Status.Used[name] = hard.DeepCopy()
			}
		}
	})
}

// A thieves' world: a namespace in which virtual machines migrate and somebody takes
// whatever room he sees, within 10 ms to 200 ms. Everything lags: the ledger by up to 50 ms
// behind the pods, kube-controller-manager by up to 400 ms.
type world struct {
	*scene
	dice       *rand.Rand
	static     int64
	others     int64 // what regular workloads use, thieves included
	migrations map[types.UID]*mover
	started    int
	recountAt  time.Time // zero: nothing to recount
	observeAt  time.Time
	again      time.Time
	next       time.Time // of the thief
}

type mover struct {
	state quota.State
	surge int64
	ends  time.Time
}

func (w *world) quotaNow() (hard, used int64) {
	rq := w.quota("q")
	h, u := rq.Status.Hard["limits.cpu"], rq.Status.Used["limits.cpu"]
	return h.Value(), u.Value() //nolint:forbidigo // small whole numbers
}

func (w *world) charge(n int64) bool {
	hard, used := w.quotaNow()
	if used+n > hard {
		return false
	}
	w.use("q", fmt.Sprintf("limits.cpu=%d", used+n))
	return true
}

func (w *world) total() int64 {
	total := w.others
	for _, m := range w.migrations {
		if m.state == quota.Charged {
			total += m.surge
		}
	}
	return total
}

func (w *world) within(most time.Duration) time.Time {
	return w.now.Add(time.Duration(w.dice.IntN(int(most/(10*time.Millisecond))+1)) * 10 * time.Millisecond)
}

func (w *world) step() {
	w.pass(10 * time.Millisecond)
	changed := false
	for _, uid := range slices.Sorted(maps.Keys(w.migrations)) {
		m := w.migrations[uid]
		switch {
		case m.state < quota.Charged && w.charge(m.surge):
			m.state, m.ends = quota.Charged, w.within(3*time.Second)
		case m.state < quota.Charged:
			m.state = quota.Blocked
			continue
		case w.now.After(m.ends):
			delete(w.migrations, uid)
			if w.recountAt.IsZero() {
				w.recountAt = w.within(400 * time.Millisecond)
			}
		default:
			continue
		}
		changed = true
	}
	if changed && w.observeAt.IsZero() {
		w.observeAt = w.within(50 * time.Millisecond)
	}
	if !w.now.Before(w.next) {
		if hard, used := w.quotaNow(); hard > used {
			w.others += hard - used
			w.use("q", fmt.Sprintf("limits.cpu=%d", hard))
		}
		w.next = w.within(200 * time.Millisecond)
	}
	applies := changed
	if !w.recountAt.IsZero() && !w.now.Before(w.recountAt) {
		w.recountAt, applies = time.Time{}, true
		w.recount(fmt.Sprintf("limits.cpu=%d", w.total()))
	}
	if !w.observeAt.IsZero() && !w.now.Before(w.observeAt) {
		w.observeAt, applies = time.Time{}, true
		var inFlight []quota.Migration
		for uid, m := range w.migrations {
			inFlight = append(inFlight, quota.Migration{
				UID: uid, State: m.state, Surge: corev1.ResourceList{"limits.cpu": *resource.NewQuantity(m.surge, resource.DecimalSI)},
			})
		}
		w.inFlight(inFlight...)
	}
	if applies || !w.again.IsZero() && !w.now.Before(w.again) {
		w.again = time.Time{}
		if r := w.apply(); r.RequeueAfter > 0 {
			w.again = w.now.Add(r.RequeueAfter)
		}
	}
}

// Whatever is taken, at most two migrations' room above static is, and that of one more which
// has ended and that the ledger still has.
func TestMintingIsBounded(t *testing.T) {
	for seed := range uint64(15) {
		w := &world{scene: newScene(t), dice: rand.New(rand.NewPCG(seed, 0)), static: 20, migrations: map[types.UID]*mover{}}
		w.others = 15 + w.dice.Int64N(8)
		bound := max(w.static, w.others)
		w.limit("q", "limits.cpu=20", fmt.Sprintf("limits.cpu=%d", w.others))
		const largest = 3
		for range 2000 {
			if len(w.migrations) < 8 && w.dice.IntN(10) == 0 {
				w.started++
				w.migrations[types.UID(fmt.Sprintf("m%04d", w.started))] = &mover{surge: 1 + w.dice.Int64N(largest)}
				w.observeAt = w.now
			}
			w.step()
			if w.others > bound+3*largest {
				t.Fatalf("seed %d: after %s regular workloads use %d, at first %d", seed, w.now.Sub(epoch), w.others, bound)
			}
		}
	}
}
