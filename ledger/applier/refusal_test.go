package applier_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// refuse makes the server answer updates with err; nil: it carries them out. It returns
// a function that counts them.
func (s *scene) refuse(err error) func() int {
	tried := 0
	s.before = func(verb string) error {
		if verb != "update" {
			return nil
		}
		tried++
		return err
	}
	return func() int { return tried }
}

// forbidden applies, and expects that the API server refuses it.
func (s *scene) forbidden() applier.QuotaResult {
	s.t.Helper()
	result, err := s.applier.Apply(s.ctx, "tenant")
	require.ErrorIs(s.t, err, applier.ErrForbidden)
	require.True(s.t, apierrors.IsForbidden(err))
	require.ErrorIs(s.t, err, result.Quotas[0].Err)
	return result.Quotas[0]
}

// full is a scene with a full quota and a blocked migration.
func full(t tb) *scene {
	s := sceneOf(t, "limits.cpu=4", "limits.cpu=4")
	s.inFlight(blocked("a", "limits.cpu=1"))
	return s
}

// denied is what the API server makes of an admission webhook's denial
// (k8s.io/apiserver, webhook/errors.ToStatusErr) or of a policy's.
func denied(reason metav1.StatusReason, code int32) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: reason, Code: code,
		Message: `admission webhook "w" denied the request: users are forbidden from changing resources managed by Rancher`,
	}}
}

func TestRefused(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "ResourceQuota"}, "q", field.ErrorList{field.Invalid(nil, 1, "no")})
	for name, test := range map[string]struct {
		err     error
		refused bool
	}{
		"RBAC":                         {apierrors.NewForbidden(groupResource, "q", errors.New("no")), true},
		"webhook, as controllers do":   {denied(metav1.StatusReasonForbidden, http.StatusForbidden), true},
		"webhook without anything":     {denied("", http.StatusBadRequest), true},
		"webhook with a code only":     {denied("", http.StatusForbidden), true},
		"webhook with a bad request":   {denied(metav1.StatusReasonBadRequest, http.StatusBadRequest), true},
		"webhook with some code":       {denied("", http.StatusTeapot), true},
		"policy":                       {denied(metav1.StatusReasonInvalid, http.StatusUnprocessableEntity), true},
		"policy, unauthorized":         {denied(metav1.StatusReasonUnauthorized, http.StatusUnauthorized), true},
		"policy, too large":            {denied(metav1.StatusReasonRequestEntityTooLarge, http.StatusRequestEntityTooLarge), true},
		"validation":                   {invalid, true},
		"a webhook that is not there":  {apierrors.NewInternalError(errors.New("failed calling webhook")), false},
		"too many requests":            {apierrors.NewTooManyRequests("later", 1), false},
		"time-out":                     {apierrors.NewTimeoutError("etcd", 1), false},
		"server time-out":              {apierrors.NewServerTimeout(groupResource, "update", 1), false},
		"no answer":                    {context.DeadlineExceeded, false},
		"a conflict that does not end": {apierrors.NewConflict(groupResource, "q", errModified), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			s.refuse(test.err)
			result, err := s.applier.Apply(s.ctx, "tenant")
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.refused, errors.Is(err, applier.ErrForbidden))
			require.Equal(t, apierrors.IsForbidden(test.err), apierrors.IsForbidden(err))
			var e *applier.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "tenant", e.Namespace)
			require.Equal(t, "q", e.Quota)

			require.Len(t, result.Quotas, 1)
			require.Equal(t, applier.Unchanged, result.Quotas[0].Action)
			require.Empty(t, result.Quotas[0].Offered)
			require.ErrorIs(t, result.Quotas[0].Err, test.err)
			if test.refused {
				require.Equal(t, 500*time.Millisecond, result.Quotas[0].RequeueAfter)
				require.Equal(t, []string{"HeadroomRefused"}, s.reasons())
				require.Equal(t, []string{"Refused q"}, s.counted())
			} else {
				require.Zero(t, result.Quotas[0].RequeueAfter)
				require.Empty(t, s.reasons())
				require.Empty(t, s.counted())
			}
		})
	}
}

func TestARefusedWriteIsNotTriedAgainTooSoon(t *testing.T) {
	s := full(t)
	no := apierrors.NewForbidden(groupResource, "q", errors.New("no"))
	tried := s.refuse(no)
	var waits []time.Duration
	for attempt := 1; attempt <= 13; attempt++ {
		wait := s.forbidden().RequeueAfter
		require.Equal(t, attempt, tried())
		waits = append(waits, wait)

		// Whatever happens meanwhile, there is no attempt and the same error.
		s.use("q", "limits.cpu=4")
		s.use("q", "limits.cpu=3500m")
		q := s.pass(wait - time.Millisecond).forbidden()
		require.Equal(t, time.Millisecond, q.RequeueAfter)
		require.Equal(t, "a WriteRefused", deferrals(q))
		require.Equal(t, attempt, tried())
		s.pass(time.Millisecond)
	}
	second := time.Second
	require.Equal(t, []time.Duration{
		second / 2, second, 2 * second, 4 * second, 8 * second, 16 * second, 32 * second, 64 * second, 128 * second, 256 * second,
		300 * second, 300 * second, 300 * second,
	}, waits)
	require.Equal(t, []string{"HeadroomRefused"}, s.reasons())

	// A success is the end of the episode.
	s.refuse(nil)
	require.Equal(t, applier.Raised, s.only().Action)
	s.inFlight()
	s.refuse(no)
	require.Equal(t, second/2, s.forbidden().RequeueAfter)
	require.Equal(t, []string{"HeadroomRefused"}, s.reasons())
}

// When there is nothing to write any more, the episode is over as well.
func TestARefusalEndsWithItsCause(t *testing.T) {
	s := full(t)
	s.refuse(apierrors.NewForbidden(groupResource, "q", errors.New("no")))
	s.forbidden()
	require.NoError(t, s.use("q", "limits.cpu=3").only().Err)
	s.use("q", "limits.cpu=4")
	require.Equal(t, 500*time.Millisecond, s.forbidden().RequeueAfter)
	require.Len(t, s.reasons(), 2)
}

// What the refusal may depend on has changed: that is worth a try at once.
func TestARefusedWriteIsTriedAgainWhenThePolicyChanges(t *testing.T) {
	for name, change := range map[string]func(s *scene){
		"the policy of the namespace": func(s *scene) { s.policy = quota.Policy{Strict: true} },
		"a label of the quota": func(s *scene) {
			s.edit("tenant/q", func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"managed": "no"} })
		},
		"its limits":             func(s *scene) { s.write("q", "limits.cpu=4500m") },
		"a quota that is new":    func(s *scene) { delete(s.quotas, "tenant/q"); s.limit("q", "limits.cpu=4", "limits.cpu=4") },
		"a restart of ourselves": func(s *scene) { s.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			tried := s.refuse(apierrors.NewForbidden(groupResource, "q", errors.New("no")))
			for range 2 {
				s.forbidden()
			}
			require.Equal(t, 1, tried())
			change(s)
			s.forbidden()
			require.Equal(t, 2, tried())
		})
	}
}

func TestWorthRetry(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{"a", "b"} {
		s.limit(name, "limits.cpu=4", "limits.cpu=4")
	}
	s.inFlight(blocked("m", "limits.cpu=1"))
	lost := errors.New("no route")
	answers := []error{denied(metav1.StatusReasonForbidden, http.StatusForbidden), lost}
	s.before = func(verb string) (err error) {
		if verb == "update" {
			err, answers = answers[0], answers[1:]
		}
		return err
	}
	_, err := s.applier.Apply(s.ctx, "tenant")
	require.ErrorIs(t, err, applier.ErrForbidden)
	require.NotErrorIs(t, applier.WorthRetry(err), applier.ErrForbidden)
	require.ErrorIs(t, applier.WorthRetry(err), lost)

	require.NoError(t, applier.WorthRetry(nil))
	require.Equal(t, lost, applier.WorthRetry(lost))
	s.refuse(denied(metav1.StatusReasonForbidden, http.StatusForbidden))
	s.pass(time.Minute)
	_, err = s.applier.Apply(s.ctx, "tenant")
	require.ErrorIs(t, err, applier.ErrForbidden)
	require.NoError(t, applier.WorthRetry(err))
}
