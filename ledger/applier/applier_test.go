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
	require.EqualError(t, err, "an applier needs Ledger, Quotas, Now")
	_, err = applier.New(applier.Config{Ledger: memory.New(), Now: time.Now})
	require.EqualError(t, err, "an applier needs Quotas")
}

// The drain of three machines, step by step: two writes for the first that is blocked,
// none when it becomes charged.
func TestABlockedMigrationCostsTwoWrites(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4 limits.memory=4952Mi")
	s.use("q", "limits.cpu=4 limits.memory=5068112Ki")
	before := s.quota("q")

	s.inFlight(blocked("a", "limits.cpu=1 limits.memory=1267028Ki"))
	raised := s.only()
	require.Equal(t, applier.Raised, raised.Action)
	require.Equal(t, `{"limits.cpu":"5","limits.memory":"6337876Ki"}`, jsonOf(t, raised.Hard))
	require.Equal(t, `{"limits.cpu":"4","limits.memory":"4952Mi"}`, jsonOf(t, raised.Static))
	require.Equal(t, []types.UID{"a"}, raised.Decision.Granted)
	require.Equal(t, map[string]string{
		applier.StaticAnnotation:  `{"limits.cpu":"4","limits.memory":"4952Mi"}`,
		applier.AppliedAnnotation: `{"limits.cpu":"5","limits.memory":"6337876Ki"}`,
	}, s.quota("q").Annotations)

	s.use("q", "limits.cpu=5 limits.memory=6335140Ki")
	s.inFlight(charged("a", "limits.cpu=1 limits.memory=1267028Ki"))
	require.Equal(t, applier.Unchanged, s.only().Action)

	s.inFlight()
	s.use("q", "limits.cpu=4 limits.memory=5068112Ki")
	restored := s.only()
	require.Equal(t, applier.Restored, restored.Action)
	require.Equal(t, restored.Static, restored.Hard)
	s.requireUntouched(before)
	require.Empty(t, s.apply().Quotas)
	require.Equal(t, 2, s.updates)
	require.Equal(t, []string{"Raised q", "Restored q"}, s.counted())
	require.Empty(t, s.reasons())
}

func TestAMigrationThatFitsCostsNoWrite(t *testing.T) {
	for name, test := range map[string]struct {
		used, hard string
		inFlight   []quota.Migration
	}{
		"blocked, exactly": {
			"limits.cpu=3", "limits.cpu=4 pods=10",
			[]quota.Migration{blocked("a", "limits.cpu=1 pods=1")},
		},
		"charged": {
			"limits.cpu=4", "limits.cpu=4",
			[]quota.Migration{charged("a", "limits.cpu=1")},
		},
		"one charged, one blocked": {
			"limits.cpu=3", "limits.cpu=4",
			[]quota.Migration{charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")},
		},
		"half charged": {
			"limits.cpu=3500m", "limits.cpu=4",
			[]quota.Migration{{UID: "a", State: quota.Charged, Surge: list("limits.cpu=1"), Held: list("limits.cpu=500m")}},
		},
		"full with what it does not charge": {
			"limits.cpu=3 configmaps=7", "limits.cpu=4 configmaps=5",
			[]quota.Migration{blocked("a", "limits.cpu=1")},
		},
		"only queued": {
			"limits.cpu=6", "limits.cpu=4",
			[]quota.Migration{queued("a", "limits.cpu=1")},
		},
		"no status yet": {
			"", "limits.cpu=4",
			[]quota.Migration{blocked("a", "limits.cpu=1")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.limit("q", test.hard)
			s.use("q", test.used)
			s.inFlight(test.inFlight...)
			result := s.only()
			require.Equal(t, applier.Unchanged, result.Action)
			require.Equal(t, applier.Enforced, result.Reached)
			require.Zero(t, s.updates)
		})
	}
}

func TestAMigrationThatDoesNotFitRaises(t *testing.T) {
	for name, test := range map[string]struct {
		used, static, hard string
		policy             quota.Policy
		inFlight           []quota.Migration
	}{
		"by a byte": {
			"limits.memory=3221225473", "limits.memory=4Gi", "limits.memory=5Gi",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.memory=1Gi")},
		},
		"on one of two resources": {
			"limits.cpu=1 pods=10", "limits.cpu=4 pods=10", "limits.cpu=5 pods=11",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.cpu=1 pods=1")},
		},
		"two of which only one fits": {
			"limits.cpu=3", "limits.cpu=4", "limits.cpu=6",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")},
		},
		"half charged": {
			"limits.cpu=4", "limits.cpu=4", "limits.cpu=5",
			quota.Policy{},
			[]quota.Migration{{UID: "a", State: quota.Charged, Surge: list("limits.cpu=1"), Held: list("limits.cpu=500m")}},
		},
		"charged in a quota that was recreated": {
			"limits.cpu=5", "limits.cpu=4", "limits.cpu=5",
			quota.Policy{},
			[]quota.Migration{charged("a", "limits.cpu=1")},
		},
		"over static before": {
			"limits.memory=5682461313", "limits.memory=5000Mi", "limits.memory=11364922626",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.memory=5682461313")},
		},
		"devices and storage": {
			"requests.nvidia.com/gpu=2 requests.storage=10Gi", "requests.nvidia.com/gpu=2 requests.storage=10Gi",
			"requests.nvidia.com/gpu=3 requests.storage=11Gi",
			quota.Policy{},
			[]quota.Migration{blocked("a", "requests.nvidia.com/gpu=1 requests.storage=1Gi limits.cpu=1")},
		},
		"a limit of zero": {
			"limits.cpu=0", "limits.cpu=0", "limits.cpu=1",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.cpu=1")},
		},
		"queued, if the policy is eager": {
			"limits.cpu=4", "limits.cpu=4", "limits.cpu=5",
			quota.Policy{Eager: true},
			[]quota.Migration{queued("a", "limits.cpu=1")},
		},
		"more than an int64 of a binary format": {
			"limits.memory=7Ei", "limits.memory=7Ei", "limits.memory=9223372036854775808",
			quota.Policy{},
			[]quota.Migration{blocked("a", "limits.memory=1152921504606846976")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.policy = test.policy
			s.limit("q", test.static)
			s.use("q", test.used)
			before := s.quota("q")
			s.inFlight(test.inFlight...)
			require.Equal(t, applier.Raised, s.only().Action)
			require.Equal(t, jsonOf(t, list(test.hard)), s.hard("q"))
			again := s.only()
			require.Equal(t, applier.Unchanged, again.Action)
			require.Equal(t, applier.Written, again.Reached)
			s.inFlight()
			require.Equal(t, applier.Restored, s.only().Action)
			s.requireUntouched(before)
		})
	}
}

// Once raised, spec.hard follows: the public figures of a drain in which another writer
// recomputes at each step.
func TestFollowsTheEffectiveLimits(t *testing.T) {
	const surge = "limits.cpu=4015m limits.memory=8940039936"
	s := newScene(t)
	s.limit("q", "limits.cpu=30 limits.memory=60Gi")
	s.use("q", "limits.cpu=28405m limits.memory=62820279552")
	s.inFlight(charged("a", surge), blocked("b", surge))
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"38030m","limits.memory":"82304589312"}`, s.hard("q"))

	s.inFlight(charged("b", surge))
	require.Equal(t, applier.Lowered, s.only().Action)
	require.Equal(t, `{"limits.cpu":"34015m","limits.memory":"73364549376"}`, s.hard("q"))

	s.inFlight()
	require.Equal(t, applier.Restored, s.only().Action)
	require.Equal(t, `{"limits.cpu":"30","limits.memory":"60Gi"}`, s.hard("q"))
}

// Nothing granted is static, also where usage is above it.
func TestNothingGrantedIsStatic(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=6")
	s.inFlight(blocked("a", "limits.cpu=1"))
	s.apply()
	require.Equal(t, `{"limits.cpu":"7"}`, s.hard("q"))
	s.inFlight(queued("a", "limits.cpu=1"))
	require.Equal(t, applier.Restored, s.only().Action)
	require.Equal(t, `{"limits.cpu":"4"}`, s.hard("q"))
}

// What is restored is spelled as it was, and the annotations of others stay.
func TestRestoredByteForByte(t *testing.T) {
	for _, limits := range []string{
		"limits.memory=4952Mi", "limits.memory=0.5Gi", "limits.cpu=1500m", "limits.cpu=2.5", "pods=1e3", "pods=0",
		"limits.memory=12345678901234567890", "limits.cpu=9223372036854775807", "limits.memory=100E", "limits.memory=8Ei",
		"limits.cpu=4 limits.memory=8Gi pods=10 requests.nvidia.com/gpu=2",
	} {
		for _, annotations := range []map[string]string{nil, {"a": "b"}, {applier.DisabledAnnotation: "false"}} {
			s := newScene(t)
			s.limit("q", limits)
			s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
				rq.Annotations, rq.Labels = maps.Clone(annotations), map[string]string{"c": "d"}
				rq.Status.Used = rq.Spec.Hard.DeepCopy()
			})
			before := s.quota("q")
			surge := "limits.cpu=1m limits.memory=1Mi pods=1 requests.nvidia.com/gpu=1"
			s.inFlight(blocked("a", surge))
			require.Equal(t, applier.Raised, s.only().Action, limits)
			require.Equal(t, applier.Unchanged, s.only().Action, limits)
			require.Len(t, s.quota("q").Annotations, 2+len(annotations))
			s.inFlight()
			require.Equal(t, applier.Restored, s.only().Action, limits)
			s.requireUntouched(before)
		}
	}
}

// Every write that leaves limits other than static has both annotations in it.
func TestStaticIsWrittenInTheSameUpdate(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.before = func(verb string) error {
		require.NotEqual(t, "patch", verb)
		return nil
	}
	s.after = func(string) error {
		if rq := s.quota("q"); s.hard("q") != `{"limits.cpu":"4"}` {
			require.Equal(t, `{"limits.cpu":"4"}`, rq.Annotations[applier.StaticAnnotation])
			require.Equal(t, s.hard("q"), rq.Annotations[applier.AppliedAnnotation])
		} else {
			require.Empty(t, rq.Annotations)
		}
		return nil
	}
	for _, inFlight := range [][]quota.Migration{
		{blocked("a", "limits.cpu=1")},
		{blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1")},
		{blocked("b", "limits.cpu=1")},
		nil,
	} {
		s.inFlight(inFlight...)
		s.apply()
	}
	require.Equal(t, 4, s.updates)
}

// What somebody changes while a quota is raised is the new static at once.
func TestEditsAreRebased(t *testing.T) {
	for name, test := range map[string]struct {
		edited, raised, static string
		action                 applier.Action
	}{
		"a limit up":            {"limits.cpu=10 pods=11", "limits.cpu=11 pods=11", "limits.cpu=10 pods=10", applier.Raised},
		"a limit down":          {"limits.cpu=2 pods=11", "limits.cpu=5 pods=11", "limits.cpu=2 pods=10", applier.Raised},
		"to nothing":            {"limits.cpu=0 pods=11", "limits.cpu=5 pods=11", "limits.cpu=0 pods=10", applier.Raised},
		"all of them":           {"limits.cpu=6 pods=20", "limits.cpu=7 pods=21", "limits.cpu=6 pods=20", applier.Raised},
		"one back, one up":      {"limits.cpu=4 pods=20", "limits.cpu=5 pods=21", "limits.cpu=4 pods=20", applier.Raised},
		"a limit gone":          {"pods=11", "pods=11", "pods=10", applier.Recorded},
		"a new one":             {"limits.cpu=5 pods=11 configmaps=3", "limits.cpu=5 pods=11 configmaps=3", "limits.cpu=4 pods=10 configmaps=3", applier.Recorded},
		"a new one it charges":  {"limits.cpu=5 pods=11 limits.memory=1Gi", "limits.cpu=5 pods=11 limits.memory=1.5Gi", "limits.cpu=4 pods=10 limits.memory=1Gi", applier.Raised},
		"by no more than spell": {"limits.cpu=5000m pods=11", "limits.cpu=5 pods=11", "limits.cpu=4 pods=10", applier.Unchanged},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.limit("q", "limits.cpu=4 pods=10")
			s.use("q", "limits.cpu=4 pods=10")
			s.inFlight(blocked("a", "limits.cpu=1 pods=1 limits.memory=512Mi"))
			s.apply()
			require.Equal(t, jsonOf(t, list("limits.cpu=5 pods=11")), s.hard("q"))

			s.write("q", test.edited)
			result := s.only()
			require.Equal(t, test.action, result.Action)
			require.Equal(t, jsonOf(t, list(test.static)), jsonOf(t, result.Static))
			require.Equal(t, jsonOf(t, list(test.raised)), s.hard("q"))
			require.Equal(t, applier.Unchanged, s.only().Action)
			require.Empty(t, s.reasons())

			s.inFlight()
			s.apply()
			require.Equal(t, jsonOf(t, list(test.static)), s.hard("q"))
			require.Empty(t, s.quota("q").Annotations)
		})
	}
}

func TestAnEditWhileAResetIsPaused(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	for range 2 {
		s.apply()
		s.write("q", "limits.cpu=4")
	}
	require.Equal(t, applier.Pending, s.only().Reached)
	s.write("q", "limits.cpu=8")
	s.use("q", "limits.cpu=8")
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"9"}`, s.hard("q"))
}

func TestSeveralAndScopedQuotas(t *testing.T) {
	s := newScene(t)
	s.limit("best", "pods=1", corev1.ResourceQuotaScopeBestEffort)
	s.limit("compute", "limits.cpu=4", corev1.ResourceQuotaScopeNotBestEffort)
	s.limit("objects", "configmaps=1")
	s.limit("pods", "pods=4 count/pods=9")
	s.limit("roomy", "limits.cpu=40")
	s.use("best", "pods=1")
	s.use("compute", "limits.cpu=4")
	s.use("objects", "configmaps=1")
	s.use("pods", "pods=4 count/pods=9")
	s.use("roomy", "limits.cpu=4")
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
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("compute"))
	require.Equal(t, `{"count/pods":"10","pods":"5"}`, s.hard("pods"))
	require.Equal(t, 2, s.updates)

	s.inFlight()
	require.Len(t, s.apply().Quotas, 2)
	for _, rq := range before {
		s.requireUntouched(rq)
	}
}

func TestQuotaCreatedInMidFlight(t *testing.T) {
	s := newScene(t)
	s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"))
	require.Empty(t, s.apply().Quotas)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=5")
	require.Equal(t, applier.Raised, s.only().Action)
	require.Equal(t, `{"limits.cpu":"6"}`, s.hard("q"))
}

func TestQuotaDeletedInMidFlight(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	s.before = func(verb string) error { // between the list and the update
		if verb == "update" {
			delete(s.quotas, "tenant/q")
		}
		return nil
	}
	require.Empty(t, s.apply().Quotas)
	require.Empty(t, s.apply().Quotas)
}

// A quota that is recreated is another one: its annotations are lost, and its limits are
// its own.
func TestQuotaRecreatedInMidFlight(t *testing.T) {
	recreate := func(s *scene) {
		delete(s.quotas, "tenant/q")
		s.limit("q", "limits.cpu=3")
		s.use("q", "limits.cpu=4")
	}
	t.Run("between two calls", func(t *testing.T) {
		s := newScene(t)
		s.limit("q", "limits.cpu=4")
		s.use("q", "limits.cpu=4")
		s.inFlight(blocked("a", "limits.cpu=1"))
		s.apply()
		recreate(s)
		require.Equal(t, applier.Raised, s.only().Action)
		require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
		require.Equal(t, `{"limits.cpu":"3"}`, s.quota("q").Annotations[applier.StaticAnnotation])
	})
	t.Run("before the update", func(t *testing.T) {
		s := newScene(t)
		s.limit("q", "limits.cpu=4")
		s.use("q", "limits.cpu=4")
		s.inFlight(blocked("a", "limits.cpu=1"))
		s.before = func(verb string) error {
			if verb == "update" {
				s.before = nil
				recreate(s)
			}
			return nil
		}
		require.Equal(t, applier.Raised, s.only().Action)
		require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
		s.inFlight()
		s.apply()
		require.Equal(t, `{"limits.cpu":"3"}`, s.hard("q"))
	})
}

// The raise counts when status.hard shows it.
func TestReached(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	require.Equal(t, applier.Written, s.only().Reached)
	require.Equal(t, applier.Written, s.only().Reached)
	s.enforce()
	require.Equal(t, applier.Enforced, s.only().Reached)
	s.inFlight()
	require.Equal(t, applier.Written, s.only().Reached)
}

// A part of the ledger that cannot be read is enough to raise, but not to lower.
func TestPartialLedger(t *testing.T) {
	s := newScene(t)
	broken := &brokenLedger{Ledger: s.record}
	s.config.Ledger = broken
	s.restart()
	s.limit("q", "limits.cpu=4 pods=5")
	s.use("q", "limits.cpu=4 pods=5")
	apply := func() applier.QuotaResult {
		result, err := s.applier.Apply(s.ctx, "tenant")
		require.ErrorIs(t, err, ledger.ErrPartial)
		require.Len(t, result.Quotas, 1)
		return result.Quotas[0]
	}
	broken.err = errors.Join(ledger.ErrPartial, errors.New("key a"))
	s.inFlight(blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=2"))
	require.Equal(t, applier.Raised, apply().Action)
	require.Equal(t, `{"limits.cpu":"7","pods":"5"}`, s.hard("q"))

	s.inFlight(blocked("c", "pods=1"))
	require.Equal(t, applier.Raised, apply().Action)
	require.Equal(t, `{"limits.cpu":"7","pods":"6"}`, s.hard("q"))
	s.inFlight()
	require.Equal(t, applier.Unchanged, apply().Action)
	s.write("q", "limits.cpu=6 pods=6") // lower than applied: the new static
	require.Equal(t, applier.Recorded, apply().Action)
	require.Equal(t, `{"limits.cpu":"6","pods":"6"}`, s.hard("q"))

	broken.err = nil
	require.Equal(t, applier.Restored, s.only().Action)
	require.Equal(t, `{"limits.cpu":"6","pods":"5"}`, s.hard("q"))
}

// Without the ledger, or without the list, nothing is done.
func TestWhatCannotBeRead(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	s.apply()
	lost := errors.New("lost")
	s.config.Ledger = &brokenLedger{Ledger: s.record, err: lost}
	s.restart()
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

	s.config.Ledger = s.record
	s.restart()
	requireError("", ledger.ErrNoNamespace, `ResourceQuotas of namespace "": read the ledger: `+ledger.ErrNoNamespace.Error())
	s.before = func(string) error { return lost }
	requireError("tenant", lost, `ResourceQuotas of namespace "tenant": list: lost`)
	s.config.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) { return nil, lost }
	s.restart()
	requireError("tenant", lost, `ResourceQuotas of namespace "tenant": list: lost`)
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("q"))
}

// A quota that fails does not keep the applier from the others.
func TestOneQuotaFails(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{"a", "b", "c"} {
		s.limit(name, "limits.cpu=4")
		s.use(name, "limits.cpu=4")
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
	require.ErrorContains(t, err, "ResourceQuota tenant/b: write: Internal error occurred: etcd")
	require.NotErrorIs(t, err, applier.ErrForbidden)
	require.True(t, apierrors.IsInternalError(result.Quotas[1].Err))
	require.Equal(t, applier.Pending, result.Quotas[1].Reached)
	require.Equal(t, applier.Unchanged, result.Quotas[1].Action)
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("a"))
	require.Equal(t, `{"limits.cpu":"4"}`, s.hard("b"))
	require.Equal(t, `{"limits.cpu":"5"}`, s.hard("c"))
	require.Equal(t, applier.Raised, s.apply().Quotas[1].Action)
}

// A context that is done stops it before it writes.
func TestContext(t *testing.T) {
	s := newScene(t)
	s.limit("q", "limits.cpu=4")
	s.use("q", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	ctx, cancel := context.WithCancel(context.Background())
	s.after = func(string) error { cancel(); return nil }
	_, err := s.applier.Apply(ctx, "tenant")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"list"}, s.calls())
}

// Nothing that comes out shares memory with what goes in, or with the applier.
func TestResultsAreTheCallers(t *testing.T) {
	const huge = "12345678901234567890"
	s := newScene(t)
	s.limit("q", "limits.memory="+huge)
	s.use("q", "limits.memory="+huge)
	cached := s.quota("q")
	s.config.List = func(context.Context, string) ([]*corev1.ResourceQuota, error) {
		return []*corev1.ResourceQuota{cached}, nil
	}
	s.restart()
	s.inFlight(blocked("a", "limits.memory="+huge))
	spoil := func(l corev1.ResourceList) {
		for name, q := range l {
			dec := q.AsDec()
			dec.Neg(dec) // of all that share it
			delete(l, name)
		}
	}
	was := cached.DeepCopy()
	for range 2 {
		r := s.only()
		spoil(r.Static)
		spoil(r.Hard)
		spoil(r.Decision.Hard)
		spoil(r.Decision.Regular)
		spoil(r.Taken)
		require.Equal(t, jsonOf(t, was), jsonOf(t, cached))
	}
	cached = s.quota("q")
	require.Equal(t, `{"limits.memory":"24691357802469135780"}`, s.hard("q"))
	require.Equal(t, applier.Unchanged, s.only().Action)
}

// Calls for one namespace wait for each other, so that they do not conflict.
func TestConcurrentCalls(t *testing.T) {
	s := newScene(t)
	s.config.Recorder, s.config.Metrics = nil, nil
	s.config.Budget = list("limits.cpu=100")
	s.restart()
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
