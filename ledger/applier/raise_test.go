package applier_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// tampered are annotations that cannot be read, each with what the error says.
var tampered = map[string]struct {
	static, applied string // "-": none
	annotation, why string
}{
	"static is gone":         {"-", `{"limits.cpu":"5"}`, applier.StaticAnnotation, "it is missing"},
	"applied is gone":        {`{"limits.cpu":"4"}`, "-", applier.AppliedAnnotation, "it is missing"},
	"static is empty":        {"", `{"limits.cpu":"5"}`, applier.StaticAnnotation, "unexpected end of JSON input"},
	"static is null":         {"null", `{"limits.cpu":"5"}`, applier.StaticAnnotation, "it is not a list of limits"},
	"static is no object":    {`["limits.cpu"]`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, "cannot unmarshal array"},
	"static goes on":         {`{"limits.cpu":"4"}}`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, "invalid character '}'"},
	"static is no quantity":  {`{"limits.cpu":"four"}`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, `limits.cpu "four": quantities must match`},
	"static is negative":     {`{"limits.cpu":"-4"}`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, `limits.cpu "-4": a limit is not negative`},
	"static has no end":      {`{"limits.cpu":"1e999999999"}`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, "the exponent is out of range"},
	"static is very long":    {`{"limits.cpu":"` + strings.Repeat("9", 65) + `"}`, `{"limits.cpu":"5"}`, applier.StaticAnnotation, "more than 64 characters"},
	"applied is no quantity": {`{"limits.cpu":"4"}`, `{"limits.cpu":"?"}`, applier.AppliedAnnotation, `limits.cpu "?"`},
	"applied has more":       {`{"limits.cpu":"4"}`, `{"limits.cpu":"5","pods":"1"}`, applier.AppliedAnnotation, "it does not limit the same resources as the static limits"},
	"static has more":        {`{"limits.cpu":"4","pods":"1"}`, `{"limits.cpu":"5"}`, applier.AppliedAnnotation, "it does not limit the same resources as the static limits"},
	"static has others":      {`{"pods":"1"}`, `{"limits.cpu":"5"}`, applier.AppliedAnnotation, "it does not limit the same resources as the static limits"},
}

func (s *scene) annotate(static, applied string) {
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
		for name, value := range map[string]string{applier.StaticAnnotation: static, applier.AppliedAnnotation: applied} {
			if delete(rq.Annotations, name); value != "-" {
				setAnnotation(rq, name, value)
			}
		}
	})
}

func setAnnotation(rq *corev1.ResourceQuota, name, value string) {
	if rq.Annotations == nil {
		rq.Annotations = map[string]string{}
	}
	rq.Annotations[name] = value
}

// A quota whose annotations cannot be read is left alone, whatever happens, until a
// person has repaired it.
func TestUnreadableAnnotations(t *testing.T) {
	for name, test := range tampered {
		t.Run(name, func(t *testing.T) {
			s := full(t)
			s.limit("other", "limits.cpu=4")
			s.use("other", "limits.cpu=4")
			before := s.quota("q")
			s.apply()
			require.Equal(t, 2, s.updates)
			s.annotate(test.static, test.applied)
			frozen := s.quota("q")

			requireLeftAlone := func() {
				result, err := s.applier.Apply(s.ctx, "tenant")
				require.ErrorIs(t, err, applier.ErrUnreadable)
				require.ErrorContains(t, err, "ResourceQuota tenant/q: annotation "+test.annotation+": ")
				require.ErrorContains(t, err, test.why)
				var e *applier.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, test.annotation, e.Annotation)
				require.Equal(t, "q", e.Quota)
				q := result.Quotas[len(result.Quotas)-1]
				require.Equal(t, "q", q.Name)
				require.ErrorIs(t, q.Err, applier.ErrUnreadable)
				require.Equal(t, applier.Pending, q.Reached)
				require.Nil(t, q.Static)
				s.requireUntouched(frozen)
				_, err = applier.Static(s.quota("q"))
				require.ErrorIs(t, err, applier.ErrUnreadable)
			}
			requireLeftAlone()
			s.inFlight(charged("a", "limits.cpu=1"), blocked("b", "limits.cpu=3"))
			requireLeftAlone()
			require.Equal(t, `{"limits.cpu":"8"}`, s.hard("other"))
			s.use("q", "limits.cpu=7")
			s.inFlight()
			requireLeftAlone()
			require.Equal(t, `{"limits.cpu":"4"}`, s.hard("other"))
			s.restart()
			requireLeftAlone()
			require.Equal(t, []string{"HeadroomUnreadable", "HeadroomUnreadable"}, s.reasons()) // one of each applier

			// The two ways of repairing it.
			if strings.Contains(test.why, "missing") {
				s.annotate(`{"limits.cpu":"4"}`, `{"limits.cpu":"5"}`)
			} else {
				s.annotate("-", "-")
				s.write("q", "limits.cpu=4")
			}
			s.apply()
			s.requireUntouched(before)
		})
	}
}

func TestStatic(t *testing.T) {
	require.Nil(t, must(applier.Static(nil)))
	rq := quotaIn("tenant", "q", "limits.cpu=4 pods=0")
	require.Equal(t, `{"limits.cpu":"4","pods":"0"}`, jsonOf(t, must(applier.Static(rq))))
	raised := applier.WithLimits(rq, rq.Spec.Hard, list("limits.cpu=5 pods=1"))
	require.Equal(t, `{"limits.cpu":"4","pods":"0"}`, jsonOf(t, must(applier.Static(raised))))
	raised.Spec.Hard = list("limits.cpu=7 pods=1 configmaps=2")
	require.Equal(t, `{"configmaps":"2","limits.cpu":"7","pods":"0"}`, jsonOf(t, must(applier.Static(raised))))
	require.Equal(t, `{"limits.cpu":"4","pods":"0"}`, jsonOf(t, rq.Spec.Hard))
	require.Nil(t, applier.WithLimits(nil, nil, nil))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// awkward are quantities that Quantity represents, rounds or caps in its own ways.
var awkward = rapid.SampledFrom([]string{
	"0", "1", "1500m", "0.1", "1n", "1e3", "12E", "100E", "8Ei", "7Ei", "4952Mi", "0.5Gi", "1.5Gi",
	"9223372036854775807", "9223372036854775808", "12345678901234567890", "123456789012345678.123456789", "999999999999999999m",
})

var awkwardLists = rapid.Custom(func(t *rapid.T) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{"limits.cpu", "limits.memory", "pods"} {
		q := resource.MustParse(awkward.Draw(t, "quantity"))
		if rapid.Bool().Draw(t, "twice") {
			q.Add(q)
		}
		l[name] = q
	}
	return l
})

// What is recorded is what is read, after a way through JSON, and going back leaves no
// trace.
func TestWithLimitsIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		static, hard := awkwardLists.Draw(t, "static"), awkwardLists.Draw(t, "hard")
		s := newServer(t)
		rq := quotaIn("tenant", "q", "")
		rq.Spec.Hard = static
		if rapid.Bool().Draw(t, "annotated") {
			rq.Annotations = map[string]string{"a": "b"}
		}
		s.create(rq)
		before := s.quotas["tenant/q"].DeepCopy()
		raised := s.store(applier.WithLimits(before, before.Spec.Hard, hard)).DeepCopy()
		require.True(t, quota.Equal(hard, raised.Spec.Hard), "%s != %s", amountsOf(hard), amountsOf(raised.Spec.Hard))
		read, err := applier.Static(raised)
		require.NoError(t, err)
		require.Equal(t, jsonOf(t, before.Spec.Hard), jsonOf(t, read))

		after := s.store(applier.WithLimits(raised, read, read))
		require.Equal(t, jsonOf(t, before.Spec), jsonOf(t, after.Spec))
		require.Empty(t, cmp.Diff(before.Annotations, after.Annotations))
		require.True(t, maps.Equal(rq.Annotations, before.Annotations))
	})
}

// Whatever the annotations hold, reading them ends, and what is read can be worked with.
func FuzzAnnotations(f *testing.F) {
	for _, test := range tampered {
		f.Add(test.static, test.applied)
	}
	f.Add(`{"limits.cpu":"4"}`, `{"limits.cpu":"5"}`)
	f.Fuzz(func(t *testing.T, static, applied string) {
		s := full(t)
		s.annotate(static, applied)
		frozen := s.quota("q")
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := s.applier.Apply(s.ctx, "tenant"); err != nil {
				require.ErrorIs(t, err, applier.ErrUnreadable)
				s.requireUntouched(frozen)
			}
		}()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
		}
	})
}
