package rancher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
)

const (
	jsonPatch = types.JSONPatchType
	merge     = types.MergePatchType
	strategic = types.StrategicMergePatchType
)

func (s *store) patch(pt types.PatchType, data string, subresources ...string) (*corev1.ResourceQuota, error) {
	return s.decorated.Patch(ctx, "q", pt, []byte(data), metav1.PatchOptions{}, subresources...)
}

// both are the merge patches that mean the same.
var both = []types.PatchType{merge, strategic}

func TestPatchesOfTheLimitsAreTranslated(t *testing.T) {
	for data, want := range map[string]struct{ hard, static string }{
		`{"spec":{"hard":{"limits.cpu":"6"}}}`:                                   {"limits.cpu=7 pods=10", "limits.cpu=6 pods=9"},
		`{"spec":{"hard":{"limits.cpu":6}}}`:                                     {"limits.cpu=7 pods=10", "limits.cpu=6 pods=9"},
		`{"spec":{"hard":{"secrets":"3","pods":null}}}`:                          {"limits.cpu=5 secrets=3", "limits.cpu=4 secrets=3"},
		`{"spec":{"hard":{"limits.cpu":"4"}}}`:                                   {"limits.cpu=5 pods=10", "limits.cpu=4 pods=9"},
		`{"spec":{"hard":{"limits.cpu":"6"}},"status":{"used":{"pods":"1000"}}}`: {"limits.cpu=7 pods=10", "limits.cpu=6 pods=9"},
		`{"spec":{"scopes":["BestEffort"]}}`:                                     {"limits.cpu=4 pods=9", "limits.cpu=4 pods=9"}, // which selects no such pods
	} {
		for _, pt := range both {
			s := inProgress(t)
			answer, err := s.patch(pt, data)
			require.NoError(t, err, "%s %s", pt, data)
			require.Equal(t, want.static, amounts(answer.Spec.Hard), "%s %s", pt, data)
			s.requireStored(want.hard, want.static)
			s.inFlight()
			_, err = s.patch(pt, `{"spec":{}}`)
			require.NoError(t, err)
			s.requireStored(want.static, want.static)
		}
	}
}

func TestStrategicDirectivesAreTranslated(t *testing.T) {
	s := inProgress(t)
	_, err := s.patch(strategic, `{"spec":{"hard":{"$patch":"replace","limits.cpu":"6"}}}`)
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=6")
	_, err = s.patch(strategic, `{"metadata":{"annotations":{"$patch":"replace","a":"b"}}}`)
	require.NoError(t, err)
	s.requireStored("limits.cpu=7", "limits.cpu=6")
	require.Equal(t, "b", s.stored().Annotations["a"])
}

// Whatever is patched beside the limits, they and the annotations of the raise stay.
func TestPatchesOfTheRestAreSent(t *testing.T) {
	for _, pt := range both {
		for _, data := range []string{
			`{"metadata":{"labels":{"a":"b"}}}`,
			`{"metadata":{"annotations":{"a":"b"}}}`,
			`{"metadata":{"annotations":null}}`,
			`{"metadata":{"annotations":{"` + applier.StaticAnnotation + `":null}}}`,
			`{"metadata":{"annotations":{"` + applier.AppliedAnnotation + `":"{}","a":"b"}}}`,
			`{}`,
		} {
			s := inProgress(t)
			answer, err := s.patch(pt, data)
			require.NoError(t, err, "%s %s", pt, data)
			require.Equal(t, "limits.cpu=4 pods=9", amounts(answer.Spec.Hard), "%s %s", pt, data)
			s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
		}
	}
	s := inProgress(t)
	_, err := s.patch(jsonPatch, `[{"op":"add","path":"/metadata/labels/a","value":"b"},{"op":"add","path":"/metadata/annotations/c~1d","value":"e"}]`)
	require.NoError(t, err)
	require.Equal(t, "b", s.stored().Labels["a"])
	require.Equal(t, "e", s.stored().Annotations["c/d"])
	s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
	_, err = s.patch(merge, `{"status":{"hard":{"pods":"10"}}}`, "status")
	require.NoError(t, err)
	require.Equal(t, "pods=10", amounts(s.stored().Status.Hard))
	s.requireStored("limits.cpu=5 pods=10", "limits.cpu=4 pods=9")
}

func TestPatchesThatCannotBeTranslatedAreRefused(t *testing.T) {
	for _, test := range []struct {
		pt           types.PatchType
		data         string
		subresources []string
	}{
		{jsonPatch, `[{"op":"replace","path":"/spec/hard/limits.cpu","value":"6"}]`, nil},
		{jsonPatch, `[{"op":"test","path":"/spec/hard/limits.cpu","value":"4"}]`, nil},
		{jsonPatch, `[{"op":"copy","from":"/spec/hard/limits.cpu","path":"/metadata/labels/a"}]`, nil},
		{jsonPatch, `[{"op":"remove","path":"/metadata/annotations/headroom.vmquota.io~1static"}]`, nil},
		{jsonPatch, `[{"op":"remove","path":"/metadata/annotations/headroom.vmquota.io~1applied"}]`, []string{"status"}},
		{jsonPatch, `[{"op":"remove","path":"/metadata/annotations"}]`, nil},
		{jsonPatch, `[{"op":"remove","path":"/metadata"}]`, nil},
		{jsonPatch, `[{"op":"replace","path":"","value":{}}]`, nil},
		{jsonPatch, `[{"op":"move","from":"","path":"/metadata/labels/a"}]`, nil},
		{jsonPatch, `{`, nil},
		{merge, `[`, nil},
		{merge, `null`, nil},
		{merge, `{} {}`, nil},
		{merge, `{"spec":{"hard":{"limits.cpu":"six"}}}`, nil},
		{merge, `{"spec":4}`, nil},
		{strategic, `{"spec":{"$patch":"nonsense"}}`, nil},
		{merge, `{"metadata":{"annotations":{"` + applier.StaticAnnotation + `":null}}}`, []string{"status"}},
		{merge, `{"metadata":null}`, []string{"status"}},
		{types.ApplyPatchType, `{"apiVersion":"v1","kind":"ResourceQuota","spec":{"hard":{"limits.cpu":"6"}}}`, nil},
		{types.ApplyPatchType, `{"apiVersion":"v1","kind":"ResourceQuota"}`, nil},
		{"something/new", `{}`, nil},
	} {
		s := inProgress(t)
		before := jsonOf(t, s.stored())
		answer, err := s.patch(test.pt, test.data, test.subresources...)
		require.ErrorIs(t, err, rancher.ErrUntranslatable, "%s %s", test.pt, test.data)
		require.Nil(t, answer)
		var typed *rancher.Error
		require.ErrorAs(t, err, &typed)
		require.Equal(t, []string{"tenant", "q"}, []string{typed.Namespace, typed.Quota})
		require.Equal(t, before, jsonOf(t, s.stored()), "%s %s", test.pt, test.data)
	}
}

func TestServerSideApplyIsRefused(t *testing.T) {
	s := inProgress(t)
	_, err := s.decorated.Apply(ctx, applycorev1.ResourceQuota("q", "tenant"), metav1.ApplyOptions{})
	require.ErrorIs(t, err, rancher.ErrUntranslatable)
	require.ErrorContains(t, err, "ResourceQuota tenant/q")
	_, err = s.decorated.Apply(ctx, nil, metav1.ApplyOptions{})
	require.ErrorIs(t, err, rancher.ErrUntranslatable)
	ours := applycorev1.ResourceQuota("q", "tenant").WithAnnotations(map[string]string{applier.StaticAnnotation: "{}"})
	_, err = s.decorated.ApplyStatus(ctx, ours, metav1.ApplyOptions{})
	require.ErrorIs(t, err, rancher.ErrUntranslatable)
	_, err = s.decorated.ApplyStatus(ctx, applycorev1.ResourceQuota("q", "tenant"), metav1.ApplyOptions{})
	require.NotErrorIs(t, err, rancher.ErrUntranslatable)
}

// A patch has no conflicts, unless it asks for them.
func TestTranslatedPatchesAreTriedAgain(t *testing.T) {
	s := inProgress(t)
	disturbances := 3
	verbs := rancher.Verbs{
		Get: func() (*corev1.ResourceQuota, error) { return s.raw.Get(ctx, "q", metav1.GetOptions{}) },
		Update: func(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
			if disturbances > 0 {
				disturbances--
				other := s.stored()
				other.Labels["n"] = string(rune('a' + disturbances))
				_, err := s.raw.Update(ctx, other, metav1.UpdateOptions{})
				require.NoError(t, err)
			}
			return s.raw.Update(ctx, rq, metav1.UpdateOptions{})
		},
	}
	patch := rancher.Patch{Namespace: "tenant", Name: "q", Type: merge, Data: []byte(`{"spec":{"hard":{"limits.cpu":"6"}}}`)}
	_, err := s.shim.Patch(ctx, patch, verbs)
	require.NoError(t, err)
	require.Zero(t, disturbances)
	s.requireStored("limits.cpu=7 pods=10", "limits.cpu=6 pods=9")

	disturbances = 5
	_, err = s.shim.Patch(ctx, patch, verbs)
	require.True(t, apierrors.IsConflict(err))
	require.Zero(t, disturbances, "but not for ever")

	disturbances = 0
	stale := patch
	stale.Data = []byte(`{"metadata":{"resourceVersion":"1"},"spec":{"hard":{"limits.cpu":"9"}}}`)
	_, err = s.shim.Patch(ctx, stale, verbs)
	require.True(t, apierrors.IsConflict(err))
	s.requireStored("limits.cpu=7 pods=10", "limits.cpu=6 pods=9")
}

func TestPatchOfNothing(t *testing.T) {
	s := newStore(t)
	_, err := s.patch(merge, `{"spec":{"hard":{"limits.cpu":"6"}}}`)
	require.True(t, apierrors.IsNotFound(err))
	_, err = s.patch(merge, `{"metadata":{"labels":{"a":"b"}}}`)
	require.True(t, apierrors.IsNotFound(err))
}
