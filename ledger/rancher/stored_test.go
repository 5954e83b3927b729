package rancher_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// inProgress is a full quota of four cores with one migration that is charged.
func inProgress(t testing.TB) *store {
	s := newStore(t)
	s.create(used(raised("limits.cpu=4 pods=9", "limits.cpu=5 pods=10"), "limits.cpu=5 pods=6"))
	s.inFlight(charged("m1", "limits.cpu=1 pods=1"))
	return s
}

func TestUpdateStoresEffective(t *testing.T) {
	for name, test := range map[string]struct{ limits, hard string }{
		"the same":          {"limits.cpu=4 pods=9", "limits.cpu=5 pods=10"},
		"more":              {"limits.cpu=6 pods=9", "limits.cpu=7 pods=10"},
		"less":              {"limits.cpu=4 pods=7", "limits.cpu=5 pods=8"},
		"below use":         {"limits.cpu=2 pods=9", "limits.cpu=5 pods=10"}, // four cores are regular
		"a zero":            {"limits.cpu=4 pods=0", "limits.cpu=5 pods=6"},  // five pods are regular
		"another key":       {"limits.cpu=4 pods=9 secrets=3", "limits.cpu=5 pods=10 secrets=3"},
		"a key taken away":  {"limits.cpu=4", "limits.cpu=5"},
		"none of its keys":  {"secrets=3", "secrets=3"},
		"in other spelling": {"limits.cpu=4000m pods=9", "limits.cpu=5 pods=10"},
	} {
		t.Run(name, func(t *testing.T) {
			s := inProgress(t)
			answer, err := s.write(s.shown(), test.limits)
			require.NoError(t, err)
			require.Equal(t, amounts(list(test.limits)), amounts(answer.Spec.Hard), "the answer is shown too")
			s.requireStored(test.hard, amounts(list(test.limits)))

			s.inFlight()
			_, err = s.write(s.shown(), test.limits)
			require.NoError(t, err)
			s.requireStored(amounts(list(test.limits)), amounts(list(test.limits)))
		})
	}
}

func TestOneUpdateCarriesLimitsAndAnnotations(t *testing.T) {
	s := inProgress(t)
	stored, err := s.shim.Stored(ctx, quotaOf("limits.cpu=4"))
	require.NoError(t, err)
	require.Equal(t, `{"limits.cpu":"4"}`, stored.Annotations[applier.StaticAnnotation])
	require.Equal(t, `{"limits.cpu":"5"}`, stored.Annotations[applier.AppliedAnnotation])
	require.Equal(t, "limits.cpu=5", amounts(stored.Spec.Hard))
}

func TestQueuedMigrationsCostNothing(t *testing.T) {
	s := newStore(t)
	s.create(quotaOf("limits.cpu=4"))
	s.inFlight(inState("m1", quota.Queued, "limits.cpu=1"))
	_, err := s.write(s.shown(), "limits.cpu=5")
	require.NoError(t, err)
	s.requireStored("limits.cpu=5", "limits.cpu=5")
}

// Without migrations the limits are Rancher's, however much is used.
func TestUsageAloneRaisesNothing(t *testing.T) {
	s := newStore(t)
	s.create(used(quotaOf("limits.cpu=4"), "limits.cpu=4"))
	_, err := s.write(s.shown(), "limits.cpu=2")
	require.NoError(t, err)
	s.requireStored("limits.cpu=2", "limits.cpu=2")
}

func TestPolicyCounts(t *testing.T) {
	s := newStore(t, func(c *rancher.Config) {
		c.Policy = func(namespace string) quota.Policy {
			require.Equal(t, "tenant", namespace)
			return quota.Policy{Eager: true, Budget: list("limits.cpu=2")}
		}
	})
	s.create(quotaOf("limits.cpu=4"))
	s.inFlight(inState("m1", quota.Queued, "limits.cpu=1"), inState("m2", quota.Queued, "limits.cpu=1"), blocked("m3", "limits.cpu=1"))
	_, err := s.write(s.shown(), "limits.cpu=5")
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=5")
}

func TestSwitchOfOneQuota(t *testing.T) {
	for _, annotation := range []string{applier.DisabledAnnotation, rancher.HarvesterSkip} {
		s := newStore(t)
		rq := used(quotaOf("limits.cpu=4"), "limits.cpu=5")
		rq.Annotations = map[string]string{annotation: "true"}
		s.create(rq)
		s.inFlight(charged("m1", "limits.cpu=1"), blocked("m2", "limits.cpu=1"))
		_, err := s.write(s.shown(), "limits.cpu=6")
		require.NoError(t, err)
		require.Equal(t, "limits.cpu=7", amounts(s.stored().Spec.Hard), "what is charged is covered, nothing else")
		a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch})
		require.NoError(t, err)
		_, err = a.Apply(ctx, "tenant")
		require.NoError(t, err)
		require.Equal(t, "limits.cpu=7", amounts(s.stored().Spec.Hard))
	}
}

func TestScopesCount(t *testing.T) {
	s := newStore(t)
	rq := quotaOf("pods=4")
	rq.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}
	s.create(rq)
	s.inFlight(blocked("m1", "pods=1"))
	same, err := s.decorated.Update(ctx, s.shown(), metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, "pods=4", amounts(same.Spec.Hard))
	require.Empty(t, s.stored().Annotations)
}

func TestZerosStayZeros(t *testing.T) {
	s := newStore(t)
	created, err := s.decorated.Create(ctx, quotaOf("limits.cpu=0 limits.memory=1Gi"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=0 limits.memory=1Gi", amounts(created.Spec.Hard))
	s.requireStored("limits.cpu=0 limits.memory=1Gi", "limits.cpu=0 limits.memory=1Gi")

	// A VM that was there before is still moved.
	s.inFlight(blocked("m1", "limits.cpu=1 limits.memory=1Gi"))
	_, err = s.write(used(s.shown(), "limits.cpu=1 limits.memory=1Gi"), "limits.cpu=0 limits.memory=1Gi")
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=0 limits.memory=1Gi", amounts(s.shown().Spec.Hard))
	s.inFlight()
	_, err = s.write(s.shown(), "limits.cpu=0 limits.memory=1Gi")
	require.NoError(t, err)
	s.requireStored("limits.cpu=0 limits.memory=1Gi", "limits.cpu=0 limits.memory=1Gi")
}

// Rancher deletes a quota and creates another one: the ledger still holds the raise.
func TestRecreatedQuotaIsRaised(t *testing.T) {
	s := inProgress(t)
	require.NoError(t, s.decorated.Delete(ctx, "q", metav1.DeleteOptions{}))
	_, err := s.raw.Get(ctx, "q", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
	created, err := s.decorated.Create(ctx, quotaOf("limits.cpu=4 pods=9"), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=4 pods=9", amounts(created.Spec.Hard))
	s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
}

// The name is the API server's to give, and the namespace may be left to the client.
func TestCreateWithoutANameOrANamespace(t *testing.T) {
	s := newStore(t)
	s.inFlight(charged("m1", "limits.cpu=1"))
	rq := quotaOf("limits.cpu=4")
	rq.Name, rq.Namespace, rq.GenerateName = "", "", "default-"
	before := jsonOf(t, rq)
	created, err := s.decorated.Create(ctx, rq, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, before, jsonOf(t, rq), "the caller's object stays as it is")
	require.Equal(t, "limits.cpu=4", amounts(created.Spec.Hard))
	stored, err := s.raw.Get(ctx, created.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=5", amounts(stored.Spec.Hard))
}

// Rancher's cache is from before a raise: it gets a conflict, and the raise stays.
func TestConflictsArePassedOn(t *testing.T) {
	s := newStore(t)
	s.create(used(quotaOf("limits.cpu=4"), "limits.cpu=4"))
	stale := s.shown()
	s.inFlight(blocked("m1", "limits.cpu=1"))
	a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch})
	require.NoError(t, err)
	_, err = a.Apply(ctx, "tenant")
	require.NoError(t, err)
	raise := s.stored()
	require.Equal(t, "limits.cpu=4", amounts(stale.Spec.Hard))

	_, err = s.write(stale, "limits.cpu=6")
	require.True(t, apierrors.IsConflict(err), "%v", err)
	require.Equal(t, jsonOf(t, raise), jsonOf(t, s.stored()))
	_, err = s.write(s.shown(), "limits.cpu=6")
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=6")
}

func TestCallersVersionIsSent(t *testing.T) {
	s := inProgress(t)
	rq := s.shown()
	rq.ResourceVersion = "1234567"
	stored, err := s.shim.Stored(ctx, rq)
	require.NoError(t, err)
	require.Equal(t, "1234567", stored.ResourceVersion)
}

// Static limits that Rancher knows repair annotations that nobody can read.
func TestUpdateRepairsAnnotations(t *testing.T) {
	s := newStore(t)
	rq := raised("limits.cpu=4", "limits.cpu=5")
	rq.Annotations[applier.AppliedAnnotation] = "{"
	s.create(rq)
	s.inFlight(charged("m1", "limits.cpu=1"))
	_, err := s.write(s.shown(), "limits.cpu=4")
	require.NoError(t, err)
	s.requireStored("limits.cpu=5", "limits.cpu=4")
}

// broken is a ledger that cannot be read, wholly or in part.
type broken struct {
	ledger.Ledger
	err error
}

func (b broken) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	if !errors.Is(b.err, ledger.ErrPartial) {
		return nil, b.err
	}
	migrations, _ := b.Ledger.Migrations(ctx, namespace)
	return migrations, b.err
}

func TestNothingIsWrittenWithoutALedger(t *testing.T) {
	down := errors.New("down")
	s := newStore(t, func(c *rancher.Config) { c.Ledger = broken{err: down} })
	s.create(raised("limits.cpu=4", "limits.cpu=5"))
	before := jsonOf(t, s.stored())
	_, err := s.write(s.shown(), "limits.cpu=6")
	require.ErrorIs(t, err, down)
	var typed *rancher.Error
	require.ErrorAs(t, err, &typed)
	require.Equal(t, []string{"tenant", "q"}, []string{typed.Namespace, typed.Quota})
	_, err = s.decorated.Create(ctx, quotaOf("limits.cpu=6"), metav1.CreateOptions{})
	require.ErrorIs(t, err, down)
	_, err = s.decorated.Patch(ctx, "q", "application/merge-patch+json", []byte(`{"spec":{"hard":{"limits.cpu":"6"}}}`), metav1.PatchOptions{})
	require.ErrorIs(t, err, down)
	require.Equal(t, before, jsonOf(t, s.stored()))
}

// What cannot be read may need what is raised: no raise is lowered.
func TestPartOfTheLedgerRaisesOnly(t *testing.T) {
	s := newStore(t, func(c *rancher.Config) { c.Ledger = broken{c.Ledger, ledger.ErrPartial} })
	s.create(raised("limits.cpu=4 pods=9", "limits.cpu=7 pods=9"))
	s.inFlight(charged("m1", "limits.cpu=1 pods=1"))
	_, err := s.write(s.shown(), "limits.cpu=6 pods=9")
	require.NoError(t, err)
	s.requireStored("limits.cpu=9 pods=10", "limits.cpu=6 pods=9")
}

func TestStatusAndDeletesAreTheClients(t *testing.T) {
	s := inProgress(t)
	rq := s.shown()
	rq.Status.Hard = list("limits.cpu=5")
	answer, err := s.decorated.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=4 pods=9", amounts(answer.Spec.Hard))
	require.Equal(t, "limits.cpu=5", amounts(answer.Status.Hard))
	s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
	_, err = s.decorated.Watch(ctx, metav1.ListOptions{})
	require.Error(t, err, "the simulated cluster has no watches")
	require.NoError(t, s.decorated.Delete(ctx, "q", metav1.DeleteOptions{}))
	require.True(t, apierrors.IsNotFound(s.decorated.Delete(ctx, "q", metav1.DeleteOptions{})))
}

// Whatever Rancher, the applier and the ledger do in whatever order: Rancher sees its own
// limits, and at the end they are what is stored, to the byte.
func TestNothingIsLeftWhateverHappens(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := newStore(t)
		a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch})
		require.NoError(t, err)
		limits := "limits.cpu=4 pods=0"
		s.create(quotaOf(limits))
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0))
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			switch random.IntN(5) {
			case 0:
				limits = []string{"limits.cpu=4 pods=0", "limits.cpu=6500m", "limits.cpu=2 pods=12345678901234567890 limits.memory=100E"}[random.IntN(3)]
				_, err := s.write(s.shown(), limits)
				require.NoError(t, err)
			case 1:
				s.inFlight(blocked("m1", "limits.cpu=1 pods=1"), charged("m2", "limits.cpu=500m limits.memory=9223372036854775807"))
			case 2:
				s.inFlight()
			case 3:
				_, err := a.Apply(ctx, "tenant")
				require.NoError(t, err)
			case 4:
				version := s.stored().ResourceVersion
				if amounts(s.shown().Spec.Hard) != amounts(list(limits)) { // as Rancher does
					_, err := s.write(s.shown(), limits)
					require.NoError(t, err)
				}
				require.Equal(t, version, s.stored().ResourceVersion)
			}
			require.Equal(t, amounts(list(limits)), amounts(s.shown().Spec.Hard))
			hard := s.stored().Spec.Hard
			for name, static := range list(limits) {
				limit := hard[name]
				require.GreaterOrEqual(t, limit.Cmp(static), 0)
			}
			require.Len(t, hard, len(list(limits)))
		}
		s.inFlight()
		_, err = a.Apply(ctx, "tenant")
		require.NoError(t, err)
		s.requireStored(amounts(list(limits)), amounts(list(limits)))
	})
}

// A budget over all namespaces is the applier's. What a write has granted beyond it, the
// applier takes back.
func TestBudgetOverAllNamespaces(t *testing.T) {
	s := newStore(t)
	s.create(used(quotaOf("limits.cpu=4"), "limits.cpu=4"))
	s.inFlight(blocked("m1", "limits.cpu=2"))
	a, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch, Budget: list("limits.cpu=2")})
	require.NoError(t, err)
	b, err := s.shim.Applier(applier.Config{Quotas: s.clients, Now: epoch, Budget: list("limits.cpu=1")})
	require.NoError(t, err)
	_, err = b.Apply(ctx, "tenant")
	require.NoError(t, err)
	s.requireStored("limits.cpu=4", "limits.cpu=4")
	_, err = s.write(s.shown(), "limits.cpu=5")
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=5")
	_, err = b.Apply(ctx, "tenant")
	require.NoError(t, err)
	s.requireStored("limits.cpu=5", "limits.cpu=5")
	_, err = a.Apply(ctx, "tenant")
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=5")
}
