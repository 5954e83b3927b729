package applier_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

func TestNew(t *testing.T) {
	_, err := applier.New(applier.Config{})
	require.EqualError(t, err, "an applier needs Ledger, Quotas and Now")
	_, err = applier.New(applier.Config{Ledger: memory.New(), Now: time.Now})
	require.Error(t, err)
}

// Room is there after the first call, whether KubeVirt has tried already or not. It costs
// one write, and none when the pod is charged or when kube-controller-manager ends it.
func TestAMigrationThatDoesNotFitCostsOneWrite(t *testing.T) {
	for name, state := range map[string]quota.State{"queued": quota.Queued, "blocked": quota.Blocked} {
		t.Run(name, func(t *testing.T) {
			s := sceneOf(t, "limits.cpu=4 limits.memory=4952Mi", "limits.cpu=4 limits.memory=5068112Ki")
			before := s.quota("q")
			a := blocked("a", "limits.cpu=1 limits.memory=1267028Ki")
			a.State = state
			s.inFlight(a)
			raised := s.only()
			require.Equal(t, applier.Raised, raised.Action)
			require.Equal(t, "limits.cpu=5 limits.memory=6337876Ki", amountsOf(raised.Hard))
			require.Equal(t, "limits.cpu=5 limits.memory=6337876Ki", amountsOf(raised.Effective))
			require.Equal(t, "limits.cpu=4 limits.memory=4952Mi", amountsOf(raised.Static))
			require.Equal(t, []types.UID{"a"}, raised.Decision.Granted)
			require.Equal(t, []types.UID{"a"}, raised.Offered)
			require.Empty(t, s.quota("q").Annotations)

			s.use("q", "limits.cpu=5 limits.memory=6335140Ki")
			s.inFlight(charged("a", "limits.cpu=1 limits.memory=1267028Ki"))
			now := s.only()
			require.Equal(t, applier.Unchanged, now.Action)
			require.Empty(t, now.Offered)
			require.Zero(t, s.apply().RequeueAfter)

			s.inFlight()
			require.Empty(t, s.recount("limits.cpu=4 limits.memory=5068112Ki").apply().Quotas)
			s.requireUntouched(before)
			require.Equal(t, []string{"Raised q"}, s.counted())
			require.Empty(t, s.reasons())
		})
	}
}

// What a charged migration charges is on top of static, also if it fitted: regular
// workloads keep what they had.
func TestChargedIsOnTop(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4 pods=10", "limits.cpu=2 pods=2")
	s.inFlight(queued("a", "limits.cpu=1 pods=1"))
	fits := s.only()
	require.Equal(t, applier.Unchanged, fits.Action)
	require.Empty(t, fits.Offered)
	require.Equal(t, "no migration needs room now", fits.Why)

	s.use("q", "limits.cpu=3 pods=3")
	s.inFlight(charged("a", "limits.cpu=1 pods=1"))
	onTop := s.only()
	require.Equal(t, applier.Raised, onTop.Action)
	require.Equal(t, "limits.cpu=5 pods=11", s.hard("q"))
	require.Equal(t, "1 migration is charged on top of the static limits", onTop.Why)
	require.Equal(t, applier.Unchanged, s.pass(time.Hour).only().Action)
	require.Equal(t, 1, s.updates)
}

func TestWhatIsEnforced(t *testing.T) {
	half := quota.Migration{UID: "a", State: quota.Charged, Surge: list("limits.cpu=1"), Held: list("limits.cpu=500m")}
	for name, test := range map[string]struct {
		used, static, hard string
		policy             quota.Policy
		inFlight           []quota.Migration
	}{
		"by a byte":                        {"limits.memory=3221225473", "limits.memory=4Gi", "limits.memory=5Gi", quota.Policy{}, []quota.Migration{blocked("a", "limits.memory=1Gi")}},
		"exactly what is free":             {"limits.memory=3Gi", "limits.memory=4Gi", "limits.memory=4Gi", quota.Policy{}, []quota.Migration{blocked("a", "limits.memory=1Gi")}},
		"one of two resources":             {"limits.cpu=1 pods=10", "limits.cpu=4 pods=10", "limits.cpu=5 pods=11", quota.Policy{}, []quota.Migration{blocked("a", "limits.cpu=1 pods=1")}},
		"two of which either fits":         {"limits.cpu=3", "limits.cpu=4", "limits.cpu=4", quota.Policy{}, []quota.Migration{blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")}},
		"one charged, one that fits":       {"limits.cpu=4", "limits.cpu=4", "limits.cpu=5", quota.Policy{}, []quota.Migration{charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")}},
		"half charged":                     {"limits.cpu=4", "limits.cpu=4", "limits.cpu=5", quota.Policy{}, []quota.Migration{half}},
		"over static":                      {"limits.memory=5682461313", "limits.memory=5000Mi", "limits.memory=11364922626", quota.Policy{}, []quota.Migration{blocked("a", "limits.memory=5682461313")}},
		"over static, strictly":            {"limits.memory=5682461313", "limits.memory=5000Mi", "limits.memory=5000Mi", quota.Policy{Strict: true}, []quota.Migration{blocked("a", "limits.memory=5682461313")}},
		"over static elsewhere":            {"limits.cpu=4 pods=9", "limits.cpu=4 pods=5", "limits.cpu=5 pods=9", quota.Policy{}, []quota.Migration{blocked("a", "limits.cpu=1")}},
		"over static, and nothing granted": {"limits.cpu=6", "limits.cpu=4", "limits.cpu=4", quota.Policy{Budget: list("limits.cpu=0")}, []quota.Migration{blocked("a", "limits.cpu=1")}},
		"devices and storage": {
			"requests.nvidia.com/gpu=2 requests.storage=10Gi", "requests.nvidia.com/gpu=2 requests.storage=10Gi", "requests.nvidia.com/gpu=3 requests.storage=11Gi",
			quota.Policy{},
			[]quota.Migration{blocked("a", "requests.nvidia.com/gpu=1 requests.storage=1Gi limits.cpu=1")},
		},
		"a limit of zero":                       {"limits.cpu=0", "limits.cpu=0", "limits.cpu=1", quota.Policy{}, []quota.Migration{blocked("a", "limits.cpu=1")}},
		"more than an int64 of a binary format": {"limits.memory=7Ei", "limits.memory=7Ei", "limits.memory=9223372036854775808", quota.Policy{}, []quota.Migration{blocked("a", "limits.memory=1152921504606846976")}},
		"a drain":                               {"limits.cpu=30405m limits.memory=62820279552", "limits.cpu=30 limits.memory=60Gi", "limits.cpu=38030m limits.memory=82304589312", quota.Policy{}, []quota.Migration{charged("a", "limits.cpu=4015m limits.memory=8940039936"), blocked("b", "limits.cpu=4015m limits.memory=8940039936")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.policy = test.policy
			s.limit("q", test.static, test.used)
			s.inFlight(test.inFlight...).apply()
			require.Equal(t, amountsOf(list(test.hard)), s.hard("q"))
			again := s.only()
			require.Equal(t, applier.Unchanged, again.Action)
			require.Equal(t, amountsOf(again.Hard), amountsOf(again.Effective))
		})
	}
}

// What is enforced in the end is spelled as spec.hard, and the annotations of others stay.
func TestRestoredByteForByte(t *testing.T) {
	for _, limits := range []string{
		"limits.memory=4952Mi", "limits.memory=0.5Gi", "limits.cpu=1500m", "limits.cpu=2.5", "pods=1e3", "pods=0",
		"limits.memory=12345678901234567890", "limits.cpu=9223372036854775807", "limits.memory=100E", "limits.memory=8Ei",
		"limits.cpu=4 limits.memory=8Gi pods=10 requests.nvidia.com/gpu=2",
	} {
		for _, annotations := range []map[string]string{nil, {"a": "b"}, {applier.DisabledAnnotation: "false"}} {
			for _, guard := range []bool{false, true} {
				s := sceneOf(t, limits, "", func(c *applier.Config) { c.Guard = guard })
				s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
					rq.Annotations, rq.Labels = maps.Clone(annotations), map[string]string{"c": "d"}
					rq.Status.Used = rq.Spec.Hard.DeepCopy()
				})
				before := s.quota("q")
				s.inFlight(blocked("a", "limits.cpu=1m limits.memory=1Mi pods=1 requests.nvidia.com/gpu=1")).apply()
				s.pass(20 * time.Millisecond).apply()
				require.Equal(t, applier.Unchanged, s.only().Action, limits)
				require.NotEqual(t, amountsOf(before.Spec.Hard), s.hard("q"))
				require.Equal(t, applier.Restored, s.inFlight().only().Action, limits)
				s.requireUntouched(before)
				require.Empty(t, s.apply().Quotas)
			}
		}
	}
}

// Its owner changes spec.hard while the quota is raised: the limits follow, and
// nothing is told.
func TestStaticIsEdited(t *testing.T) {
	for name, test := range map[string]struct {
		edited string
		hard   string // with a charged and a waiting migration
		after  string // without, when kube-controller-manager is down
	}{
		"up":                {"limits.cpu=10 pods=10", "limits.cpu=11 pods=11", "limits.cpu=10 pods=10"},
		"down":              {"limits.cpu=4 pods=6", "limits.cpu=7 pods=8", "limits.cpu=4 pods=6"},
		"to nothing":        {"limits.cpu=0 pods=0", "limits.cpu=7 pods=7", "limits.cpu=0 pods=0"},
		"up and down":       {"limits.cpu=9 pods=4", "limits.cpu=11 pods=7", "limits.cpu=9 pods=4"},
		"a resource less":   {"limits.cpu=5", "limits.cpu=7", "limits.cpu=5"},
		"a resource more":   {"limits.cpu=5 pods=5 limits.memory=1Gi", "limits.cpu=7 pods=7 limits.memory=2Gi", "limits.cpu=5 pods=5 limits.memory=1Gi"},
		"another spelling":  {"limits.cpu=5000m pods=5", "limits.cpu=7 pods=7", "limits.cpu=5 pods=5"},
		"all of it is gone": {"", "", ""},
	} {
		for _, first := range []string{"quota controller", "applier"} {
			t.Run(name+", "+first+" first", func(t *testing.T) {
				s := sceneOf(t, "limits.cpu=5 pods=5", "limits.cpu=6 pods=6")
				inFlight := []quota.Migration{charged("a", "limits.cpu=1 pods=1 limits.memory=512Mi"), blocked("b", "limits.cpu=1 pods=1 limits.memory=512Mi")}
				s.inFlight(inFlight...).apply()
				require.Equal(t, "limits.cpu=7 pods=7", s.hard("q"))

				s.write("q", test.edited)
				if first == "applier" {
					s.apply() // it does not count, so it adds nothing
				}
				s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
					used := list("limits.cpu=6 pods=6 limits.memory=1Gi")
					rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard.DeepCopy(), Used: corev1.ResourceList{}}
					for name := range rq.Spec.Hard {
						rq.Status.Used[name] = used[name]
					}
				})
				s.apply()
				require.Equal(t, amountsOf(list(test.hard)), s.hard("q"))
				require.Empty(t, s.reasons())

				s.inFlight().apply()
				s.pass(time.Second).apply()
				require.Equal(t, amountsOf(list(test.after)), s.hard("q"))
				require.Equal(t, jsonOf(t, s.quota("q").Spec.Hard), jsonOf(t, s.quota("q").Status.Hard))
			})
		}
	}
}

func TestSeveralAndScopedQuotas(t *testing.T) {
	s := newScene(t)
	s.limit("best", "pods=1", "pods=1", corev1.ResourceQuotaScopeBestEffort)
	s.limit("compute", "limits.cpu=4", "limits.cpu=4", corev1.ResourceQuotaScopeNotBestEffort)
	s.limit("objects", "configmaps=1", "configmaps=1")
	s.limit("pods", "pods=4 count/pods=9", "pods=4 count/pods=9")
	s.limit("roomy", "limits.cpu=40", "limits.cpu=4")
	before := []*corev1.ResourceQuota{s.quota("best"), s.quota("compute"), s.quota("objects"), s.quota("pods"), s.quota("roomy")}

	s.inFlight(blocked("a", "limits.cpu=1 pods=1 count/pods=1"))
	result := s.apply()
	actions := map[string]applier.Action{}
	var names []string
	for _, q := range result.Quotas {
		actions[q.Name] = q.Action
		names = append(names, q.Name)
	}
	require.Equal(t, map[string]applier.Action{
		"compute": applier.Raised, "pods": applier.Raised, "roomy": applier.Unchanged,
	}, actions)
	require.True(t, slices.IsSorted(names))
	require.Equal(t, "limits.cpu=5", s.hard("compute"))
	require.Equal(t, "count/pods=10 pods=5", s.hard("pods"))
	require.Equal(t, 2, s.updates)

	require.Len(t, s.inFlight().apply().Quotas, 2)
	for _, rq := range before {
		s.requireUntouched(rq)
	}
}

// Scopes that change in mid-flight change which quota is in the way, and nothing else.
func TestScopesChange(t *testing.T) {
	s := full(t)
	s.apply()
	require.Equal(t, "limits.cpu=5", s.hard("q"))
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
		rq.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}
	})
	require.Equal(t, applier.Restored, s.only().Action)
	require.Empty(t, s.apply().Quotas)
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Spec.Scopes = nil })
	require.Equal(t, applier.Raised, s.only().Action)
}

// A target pod has to pass all quotas, so there is room in all of those in its way, or in
// none; and those that are not in its way stay as they are.
func TestAllInTheWayOrNone(t *testing.T) {
	s := newScene(t)
	s.limit("cpu", "limits.cpu=4", "limits.cpu=4")
	s.limit("pods", "pods=4", "pods=4")
	s.limit("roomy", "limits.cpu=40 pods=40", "limits.cpu=4 pods=4")
	s.policy = quota.Policy{Budget: list("limits.cpu=1 pods=0")} // what gets no room here uses none up there
	s.inFlight(blocked("a", "limits.cpu=1 pods=1"), blocked("b", "limits.cpu=1"))
	result := s.apply()
	require.Equal(t, "limits.cpu=5", s.hard("cpu"))
	require.Equal(t, "pods=4", s.hard("pods"))
	require.Equal(t, "limits.cpu=40 pods=40", s.hard("roomy"))
	require.Equal(t, []types.UID{"b"}, result.Quotas[0].Offered)
	require.Empty(t, deferrals(result.Quotas[0])) // it is the other that says why
	require.Equal(t, "a BudgetExceeded pods=1", deferrals(result.Quotas[1]))
	require.Empty(t, deferrals(result.Quotas[2]))

	s.policy = quota.Policy{}
	s.apply()
	require.Equal(t, "limits.cpu=6", s.hard("cpu"))
	require.Equal(t, "pods=5", s.hard("pods"))
	require.Equal(t, "limits.cpu=40 pods=40", s.hard("roomy"))
}

// The second migration of a VM whose first one is not over waits for that, perhaps for
// hours, and must not hold the others back meanwhile.
func TestAMigrationThatWaitsForAnotherUsesUpNoBudget(t *testing.T) {
	s := sceneOf(t, "limits.cpu=3", "limits.cpu=4")
	s.policy = quota.Policy{Budget: list("limits.cpu=2")}
	first, second, other := charged("a", "limits.cpu=1"), queued("b", "limits.cpu=1"), blocked("c", "limits.cpu=1")
	second.VMI, first.Over = first.VMI, true
	require.Equal(t, []types.UID{"c"}, s.inFlight(first, second, other).apply().Quotas[0].Offered)
}

// A growth by hot-plug must fit static: with no room for it an offer is of no use.
func TestGrowth(t *testing.T) {
	for name, test := range map[string]struct {
		used, hard, deferred string
	}{
		"fits static, the surge does not": {"limits.cpu=3", "limits.cpu=6", ""},
		"both fit only one by one":        {"limits.cpu=1500m", "limits.cpu=6", ""},
		"does not fit static":             {"limits.cpu=3500m", "limits.cpu=4", "a GrowthAboveStatic limits.cpu=500m"},
		"all fits":                        {"limits.cpu=1", "limits.cpu=4", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := sceneOf(t, "limits.cpu=4", test.used)
			a := blocked("a", "limits.cpu=2")
			a.Growth = list("limits.cpu=1 limits.memory=1Ti")
			s.inFlight(a)
			require.Equal(t, test.deferred, deferrals(s.only()))
			require.Equal(t, test.hard, s.hard("q"))
		})
	}
}

// A resource that kube-controller-manager does not count yet is in nobody's way.
func TestAResourceThatIsNotCounted(t *testing.T) {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=1", func(c *applier.Config) { c.Guard = true })
	s.write("q", "limits.cpu=4 pods=0")
	r := s.inFlight(blocked("a", "limits.cpu=1 pods=1")).only()
	require.Equal(t, applier.Unchanged, r.Action)
	require.Empty(t, r.Offered)
	require.Equal(t, applier.Announced, s.recount("limits.cpu=1 pods=0").only().Action)
}

func TestQuotaCreatedInMidFlight(t *testing.T) {
	s := newScene(t)
	require.Empty(t, s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")).apply().Quotas)
	s.create(quotaIn("tenant", "q", "limits.cpu=4"))
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Status = corev1.ResourceQuotaStatus{} })
	uncounted := s.only()
	require.Equal(t, applier.Unchanged, uncounted.Action)
	require.Equal(t, "kube-controller-manager has not counted the quota yet", uncounted.Why)
	s.recount("limits.cpu=5").expect(applier.Raised, "limits.cpu=6")
}

func TestQuotaDeletedInMidFlight(t *testing.T) {
	s := full(t)
	s.before = func(verb string) error { // between the list and the update
		if verb == "update" {
			delete(s.quotas, "tenant/q")
		}
		return nil
	}
	require.Empty(t, s.apply().Quotas)
	require.Empty(t, s.apply().Quotas)
}

// A quota that is recreated is another one: nothing of the old one is remembered.
func TestQuotaRecreatedInMidFlight(t *testing.T) {
	recreate := func(s *scene) {
		delete(s.quotas, "tenant/q")
		s.limit("q", "limits.cpu=3", "limits.cpu=4")
	}
	t.Run("between two calls", func(t *testing.T) {
		s := full(t)
		s.apply()
		recreate(s)
		s.expect(applier.Raised, "limits.cpu=5")
	})
	t.Run("before the update", func(t *testing.T) {
		s := full(t)
		s.before = func(verb string) error {
			if verb == "update" {
				s.before = nil
				recreate(s)
			}
			return nil
		}
		s.expect(applier.Raised, "limits.cpu=5")
		s.inFlight().apply()
		require.Equal(t, "limits.cpu=3", s.hard("q"))
	})
}

// A part of the ledger that cannot be read is enough to raise, but not to lower.
func TestPartialLedger(t *testing.T) {
	s := newScene(t)
	broken := &brokenLedger{Ledger: s.record}
	s.restart(func(c *applier.Config) { c.Ledger = broken })
	s.limit("q", "limits.cpu=4 pods=5", "limits.cpu=4 pods=5")
	apply := func() applier.QuotaResult {
		result, err := s.applier.Apply(s.ctx, "tenant")
		require.ErrorIs(t, err, ledger.ErrPartial)
		require.Len(t, result.Quotas, 1)
		return result.Quotas[0]
	}
	broken.err = errors.Join(ledger.ErrPartial, errors.New("key a"))
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=2"))
	require.Equal(t, applier.Raised, apply().Action)
	require.Equal(t, "limits.cpu=7 pods=5", s.hard("q"))

	s.inFlight(blocked("c", "pods=1"))
	require.Equal(t, applier.Raised, apply().Action)
	require.Equal(t, "limits.cpu=7 pods=6", s.hard("q"))
	s.inFlight()
	for range 3 {
		require.Equal(t, applier.Unchanged, apply().Action)
		s.pass(time.Minute)
	}
	require.Equal(t, "limits.cpu=7 pods=6", s.hard("q"))

	broken.err = nil
	s.apply()
	require.Equal(t, applier.Restored, s.pass(time.Second).only().Action)
}

// Without the ledger, or without the list, nothing is done.
func TestWhatCannotBeRead(t *testing.T) {
	s := full(t)
	s.apply()
	lost := errors.New("lost")
	s.restart(func(c *applier.Config) { c.Ledger = &brokenLedger{Ledger: s.record, err: lost} })
	requireError := func(namespace string, want error, text string) {
		result, err := s.applier.Apply(s.ctx, namespace)
		require.Empty(t, cmp.Diff(applier.Result{}, result))
		require.ErrorIs(t, err, want)
		require.EqualError(t, err, text)
		var e *applier.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, namespace, e.Namespace)
	}
	requireError("tenant", lost, `ResourceQuotas of namespace "tenant": read the ledger: lost`)

	s.restart(func(c *applier.Config) { c.Ledger = s.record })
	requireError("", ledger.ErrNoNamespace, `ResourceQuotas of namespace "": read the ledger: `+ledger.ErrNoNamespace.Error())
	s.before = func(string) error { return lost }
	requireError("tenant", lost, `ResourceQuotas of namespace "tenant": list: lost`)
	s.restart(func(c *applier.Config) {
		c.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) { return nil, lost }
	})
	requireError("tenant", lost, `ResourceQuotas of namespace "tenant": list: lost`)
	require.Equal(t, "limits.cpu=5", s.hard("q"))
}

// A quota that fails does not keep the applier from the others.
func TestOneQuotaFails(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{"a", "b", "c"} {
		s.limit(name, "limits.cpu=4", "limits.cpu=4")
	}
	s.inFlight(blocked("a", "limits.cpu=1"))
	updates := 0
	s.before = func(verb string) error {
		if verb == "update" {
			if updates++; updates == 2 {
				return apierrors.NewInternalError(errors.New("etcd"))
			}
		}
		return nil
	}
	result, err := s.applier.Apply(s.ctx, "tenant")
	require.ErrorContains(t, err, "ResourceQuota tenant/b: write status: Internal error occurred: etcd")
	require.NotErrorIs(t, err, applier.ErrForbidden)
	require.True(t, apierrors.IsInternalError(result.Quotas[1].Err))
	require.Equal(t, applier.Unchanged, result.Quotas[1].Action)
	require.Empty(t, result.Quotas[1].Offered)
	require.Equal(t, "limits.cpu=5", s.hard("a"))
	require.Equal(t, "limits.cpu=4", s.hard("b"))
	require.Equal(t, "limits.cpu=5", s.hard("c"))
	require.Equal(t, applier.Raised, s.apply().Quotas[1].Action)
}

// A context that is done stops it before it writes.
func TestContext(t *testing.T) {
	s := full(t)
	ctx, cancel := context.WithCancel(s.ctx)
	s.after = func(string) error { cancel(); return nil }
	_, err := s.applier.Apply(ctx, "tenant")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"list"}, s.calls())
}

// Nothing that comes out shares memory with what goes in, or with the applier.
func TestResultsAreTheCallers(t *testing.T) {
	const huge = "12345678901234567890"
	s := sceneOf(t, "limits.memory="+huge, "limits.memory=30000000000000000000")
	cached := s.quota("q")
	s.config.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) {
		return []*corev1.ResourceQuota{cached}, nil
	}
	s.restart()
	spoil := func(l corev1.ResourceList) {
		for name, q := range l {
			dec := q.AsDec()
			dec.Neg(dec) // of all that share it
			delete(l, name)
		}
	}
	s.inFlight(charged("c", "limits.memory=17654321098765432110"), blocked("a", "limits.memory="+huge))
	was := cached.DeepCopy()
	for i := range 4 {
		r := s.only()
		for _, l := range []corev1.ResourceList{
			r.Static, r.Hard, r.Effective, r.Decision.Hard, r.Decision.Regular, r.Decision.Temporary, r.Decision.Available, r.Decision.Surge, r.Decision.Need, r.Taken,
		} {
			spoil(l)
		}
		for _, d := range r.Decision.Deferred {
			spoil(d.Missing)
		}
		require.Equal(t, jsonOf(t, was), jsonOf(t, cached), i)
	}
	cached = s.quota("q")
	require.Equal(t, "limits.memory=42345678901234567890", s.hard("q"))
	require.Equal(t, applier.Unchanged, s.only().Action)
}

// Calls for one namespace wait for each other, so that they do not conflict.
func TestConcurrentCalls(t *testing.T) {
	s := newScene(t, func(c *applier.Config) { c.Parallel.Open, c.Recorder, c.Metrics = 99, nil, nil })
	namespaces := []string{"n1", "n2", "n3"}
	for _, namespace := range namespaces {
		s.create(quotaIn(namespace, "q", "limits.cpu=4"))
		s.edit(namespace+"/q", func(rq *corev1.ResourceQuota) { rq.Status.Used = list("limits.cpu=4") })
		require.NoError(t, s.record.Replace(s.ctx, namespace, []quota.Migration{blocked(types.UID(namespace), "limits.cpu=1")}))
	}
	var group sync.WaitGroup
	for i := range 24 {
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := s.applier.Apply(s.ctx, namespaces[i%3]); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	require.Equal(t, 3, s.updates)
	require.NotContains(t, s.calls(), "get") // there were no conflicts
}

// brokenLedger returns err beside the migrations, or instead of them.
type brokenLedger struct {
	ledger.Ledger
	err error
}

func (l *brokenLedger) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	migrations, err := l.Ledger.Migrations(ctx, namespace)
	if err == nil && l.err != nil && !errors.Is(l.err, ledger.ErrPartial) {
		return nil, l.err
	}
	return migrations, errors.Join(err, l.err)
}
