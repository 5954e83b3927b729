package rancher_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// What Harvester v1.4.2 and newer write for one VM of one core and 1Gi.
const (
	entryKey   = "harvesterhci.io/migratingUID-5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01"
	entryValue = `{"limits.cpu":"1","limits.memory":"1267028Ki"}`
	// namedKey is what v1.4.1 and older do.
	namedKey = "harvesterhci.io/migrating-vm1"
)

// limits are those of Harvester's own test plan.
var limits = listOf("limits.cpu", "4", "limits.memory", "4952Mi")

func listOf(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

// harvested is a quota with limits of hard, and annotations in pairs.
func harvested(hard corev1.ResourceList, annotations ...string) *corev1.ResourceQuota {
	rq := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "default-gn4d2", Annotations: map[string]string{"keep": "me"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}
	for i := 0; i < len(annotations); i += 2 {
		rq.Annotations[annotations[i]] = annotations[i+1]
	}
	return rq
}

func spelled(list corev1.ResourceList) string {
	var parts []string
	for _, name := range []corev1.ResourceName{"limits.cpu", "limits.memory", "requests.memory", "pods"} {
		if q, ok := list[name]; ok {
			parts = append(parts, string(name)+"="+q.String())
		}
	}
	return strings.Join(parts, " ")
}

func TestReadHarvester(t *testing.T) {
	record, err := rancher.ReadHarvester(harvested(limits,
		entryKey, entryValue,
		namedKey, `{"limits.cpu":1.5,"limits.memory":null,"requests.storage":"1Gi"}`,
		rancher.HarvesterCompensation, `{"limits.memory":"134217728"}`,
		rancher.HarvesterResync, "true",
		rancher.HarvesterSkip, "true",
		"harvesterhci.io/migratingElse", "not ours",
	))
	require.NoError(t, err)
	require.True(t, record.Changed)
	require.False(t, record.Followed)
	require.Equal(t, "limits.memory=128Mi", strings.ReplaceAll(spelled(record.Compensation), "134217728", "128Mi"))
	require.Len(t, record.Entries, 2)
	require.Equal(t, "vm1", record.Entries[0].VMI)
	require.Equal(t, "limits.cpu=1500m limits.memory=0", spelled(record.Entries[0].Surge))
	require.Equal(t, types.UID("5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01"), record.Entries[1].UID)
	require.Equal(t, "limits.cpu=1 limits.memory=1267028Ki", spelled(record.Entries[1].Surge))

	record, err = rancher.ReadHarvester(harvested(limits, rancher.HarvesterResync, "false", rancher.HarvesterCompensation, ""))
	require.NoError(t, err)
	require.Equal(t, rancher.HarvesterRecord{Followed: true}, record)

	record, err = rancher.ReadHarvester(nil)
	require.NoError(t, err)
	require.Equal(t, rancher.HarvesterRecord{}, record)
}

// H18: what is malformed is named, with object, annotation and field, and hides nothing
// else.
func TestH18MalformedEntryHidesNoOther(t *testing.T) {
	for value, want := range map[string][]string{
		``:                                {""},
		`{`:                               {""},
		`["limits.cpu"]`:                  {""},
		`{"limits.cpu":"one"}`:            {"limits.cpu"},
		`{"limits.cpu":{},"x":"-1"}`:      {"limits.cpu", "x"},
		`{"limits.memory":"1e999999999"}`: {"limits.memory"},
		`{"limits.cpu":"` + strings.Repeat("9", 65) + `"}`: {"limits.cpu"},
		`{"limits.cpu":"1","limits.memory":"1267028Kib"}`:  {"limits.memory"},
	} {
		rq := harvested(limits, entryKey, entryValue, namedKey, value)
		record, err := rancher.ReadHarvester(rq)
		var fields []string
		for _, one := range joined(err) {
			var malformed *rancher.HarvesterError
			require.ErrorAs(t, one, &malformed, value)
			require.Equal(t, "tenant/default-gn4d2", malformed.Namespace+"/"+malformed.Quota)
			require.Equal(t, namedKey, malformed.Annotation)
			require.ErrorContains(t, one, "ResourceQuota tenant/default-gn4d2: annotation "+namedKey)
			fields = append(fields, malformed.Field)
		}
		require.Equal(t, want, fields, value)
		require.Equal(t, entryKey, record.Entries[len(record.Entries)-1].Annotation)
		if strings.Contains(value, `"1"`) {
			require.Equal(t, "limits.cpu=1", spelled(record.Entries[0].Surge), "the good field counts")
		}
	}
}

func joined(err error) []error {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		return several.Unwrap()
	}
	return nil
}

func FuzzReadHarvester(f *testing.F) {
	f.Add(entryKey, entryValue, "true")
	f.Add(namedKey, `{"limits.cpu":1e3,"limits.memory":null}`, "false")
	f.Add(rancher.HarvesterCompensation, `{"limits.memory":"12345678901234567890"}`, "")
	f.Add("harvesterhci.io/migrating-", `{"limits.cpu":"100E","limits.memory":"-1"}`, "maybe")
	f.Fuzz(func(t *testing.T, key, value, resync string) {
		rq := harvested(limits, key, value, rancher.HarvesterResync, resync, "harvesterhci.io/migrating-good", entryValue)
		before := rq.DeepCopy()
		record, err := rancher.ReadHarvester(rq)
		for _, one := range joined(err) {
			var malformed *rancher.HarvesterError
			require.ErrorAs(t, one, &malformed)
		}
		if key != "harvesterhci.io/migrating-good" {
			found := false
			for _, e := range record.Entries {
				found = found || e.VMI == "good"
			}
			require.True(t, found)
		}
		for _, e := range record.Entries {
			for _, q := range e.Surge {
				require.GreaterOrEqual(t, q.Sign(), 0)
			}
		}
		for _, asked := range []corev1.ResourceList{nil, limits, listOf("limits.cpu", "1")} {
			static, _ := rancher.HarvesterStatic(rq, asked)
			if static == nil {
				continue // an annotation of this library that cannot be read
			}
			for name, q := range static {
				require.LessOrEqual(t, q.Cmp(rq.Spec.Hard[name]), 0, "static is never above what is there")
			}
			_, _ = rancher.AdoptHarvester(rq, asked, true)
			_ = rancher.MirrorHarvester(rq, record.InFlight(), func(string) types.UID { return "" })
		}
		require.Equal(t, before, rq, "the quota is read only")
	})
}

// Static is what Rancher wrote, in whatever state Harvester has left the quota.
func TestHarvesterStatic(t *testing.T) {
	raised := listOf("limits.cpu", "5", "limits.memory", "6337876Ki") // one VM more
	tests := map[string]struct {
		hard        corev1.ResourceList
		limits      corev1.ResourceList
		annotations []string
		want        string
	}{
		"raised": {
			raised, limits,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "false"},
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"raised by v1.4.0": {raised, limits, []string{namedKey, entryValue}, "limits.cpu=4 limits.memory=4952Mi"},
		"the entry is there, spec.hard has not followed": {
			limits, limits,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "true"},
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"the entry is gone, spec.hard has not followed": {
			raised, limits,
			[]string{rancher.HarvesterResync, "true"},
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"one of two entries is gone, spec.hard has not followed": {
			listOf("limits.cpu", "6", "limits.memory", "8Gi"), limits,
			[]string{entryKey, entryValue},
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"H1: the entry has leaked":                      {raised, limits, []string{entryKey, entryValue}, "limits.cpu=4 limits.memory=4952Mi"},
		"H16: Rancher has reset spec.hard":              {limits, limits, []string{namedKey, entryValue}, "limits.cpu=4 limits.memory=4952Mi"},
		"H15: Rancher has refused what is asked for":    {limits, listOf("limits.cpu", "40", "limits.memory", "64Gi"), []string{entryKey, entryValue}, "limits.cpu=4 limits.memory=4952Mi"},
		"H14: zero, because it did not fit the project": {listOf("limits.cpu", "0", "limits.memory", "0"), limits, []string{entryKey, entryValue}, "limits.cpu=0 limits.memory=0"},
		"H14: zero is asked for":                        {listOf("limits.cpu", "0", "limits.memory", "4Gi"), listOf("limits.cpu", "0", "limits.memory", "4Gi"), []string{entryKey, entryValue}, "limits.cpu=0 limits.memory=4Gi"},
		"H6: other limits are never Harvester's": {
			listOf("limits.cpu", "5", "requests.memory", "4200Mi", "pods", "10"), listOf("limits.cpu", "4", "requests.memory", "4Gi", "pods", "9"),
			[]string{entryKey, entryValue},
			"limits.cpu=4 requests.memory=4200Mi pods=10",
		},
		"H9: compensation": {
			listOf("limits.memory", "10Gi"), listOf("limits.memory", "5000Mi"),
			[]string{rancher.HarvesterCompensation, `{"limits.memory":"5Gi"}`},
			"limits.memory=5000Mi",
		},
		"H13: the namespace has no annotation any more": {
			raised, nil,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "false"},
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"H13: and it was gone before spec.hard could follow": {
			listOf("limits.cpu", "4", "limits.memory", "1237Mi"), nil,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "false"},
			"limits.cpu=4 limits.memory=1237Mi",
		},
		"H13: and a limit was all that was added": {
			listOf("limits.cpu", "1", "limits.memory", "4952Mi"), nil,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "false"},
			"limits.cpu=1 limits.memory=4952Mi",
		},
		"H13: and it is not known whether spec.hard has followed": {
			raised, nil,
			[]string{entryKey, entryValue, rancher.HarvesterResync, "true"},
			spelled(raised),
		},
		"H18: a malformed entry, with limits known": {raised, limits, []string{entryKey, entryValue, namedKey, "{"}, "limits.cpu=4 limits.memory=4952Mi"},
		"H18: a malformed entry, with no limits": {
			raised, nil, []string{entryKey, entryValue, namedKey, "{", rancher.HarvesterResync, "false"}, spelled(raised),
		},
		"H12: skipped in the middle": {
			raised, limits, []string{entryKey, entryValue, rancher.HarvesterSkip, "true"}, "limits.cpu=4 limits.memory=4952Mi",
		},
		"H12: skipped, and set by hand": {
			listOf("limits.cpu", "100", "limits.memory", "4952Mi"), limits,
			[]string{entryKey, entryValue, rancher.HarvesterSkip, "true"},
			"limits.cpu=100 limits.memory=4952Mi",
		},
		"no sign of Harvester": {raised, limits, nil, spelled(raised)},
		"only that it has followed, long ago": {
			raised, limits, []string{rancher.HarvesterResync, "false"}, spelled(raised),
		},
		"ours, mirrored": {
			raised, limits, ours("3", "4952Mi", raised, entryKey, entryValue), "limits.cpu=3 limits.memory=4952Mi",
		},
		"ours, reset to what we recorded": {
			limits, listOf("limits.cpu", "3", "limits.memory", "1Gi"), ours("4", "4952Mi", raised, entryKey, entryValue), "limits.cpu=4 limits.memory=4952Mi",
		},
		"ours, then rolled back, and Harvester has raised": {
			raised, limits, ours("4", "4952Mi", listOf("limits.cpu", "9", "limits.memory", "90Gi"), entryKey, entryValue),
			"limits.cpu=4 limits.memory=4952Mi",
		},
		"ours, then edited": {
			listOf("limits.cpu", "7", "limits.memory", "70Gi"), limits, ours("4", "4952Mi", raised, entryKey, entryValue),
			"limits.cpu=7 limits.memory=70Gi",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rq := harvested(test.hard, test.annotations...)
			static, err := rancher.HarvesterStatic(rq, test.limits)
			require.Equal(t, strings.Contains(name, "malformed"), err != nil, err)
			require.Equal(t, test.want, spelled(static))
		})
	}
}

// ours are the annotations of a raise by this library, and others.
func ours(cpu, memory string, applied corev1.ResourceList, others ...string) []string {
	rq := applier.WithLimits(&corev1.ResourceQuota{}, listOf("limits.cpu", cpu, "limits.memory", memory), applied)
	return append(others, applier.StaticAnnotation, rq.Annotations[applier.StaticAnnotation],
		applier.AppliedAnnotation, rq.Annotations[applier.AppliedAnnotation])
}

func TestHarvesterStaticWithUnreadableRecord(t *testing.T) {
	_, err := rancher.HarvesterStatic(harvested(limits, entryKey, entryValue, applier.StaticAnnotation, "{"), limits)
	require.ErrorIs(t, err, applier.ErrUnreadable)
	next, err := rancher.AdoptHarvester(harvested(limits, entryKey, entryValue, applier.StaticAnnotation, "{"), limits, true)
	require.ErrorIs(t, err, applier.ErrUnreadable)
	require.Nil(t, next)
}

// Adopting changes no limit, and nothing but Harvester's annotations.
func TestAdoptHarvester(t *testing.T) {
	raised := listOf("limits.cpu", "5", "limits.memory", "7Gi", "pods", "10")
	rq := harvested(raised, entryKey, entryValue, rancher.HarvesterResync, "false", rancher.HarvesterSkip, "true",
		rancher.HarvesterCompensation, fmt.Sprintf(`{"limits.memory":"%s"}`, minus("7Gi", "4952Mi", "1267028Ki")))
	before := rq.DeepCopy()
	next, err := rancher.AdoptHarvester(rq, limits, true)
	require.NoError(t, err)
	require.Equal(t, before, rq)
	require.Equal(t, spelled(raised), spelled(next.Spec.Hard))
	require.Equal(t, map[string]string{
		"keep":                    "me",
		rancher.HarvesterSkip:     "true",
		applier.StaticAnnotation:  `{"limits.cpu":"4","limits.memory":"4952Mi","pods":"10"}`,
		applier.AppliedAnnotation: `{"limits.cpu":"5","limits.memory":"7Gi","pods":"10"}`,
	}, next.Annotations)

	again, err := rancher.AdoptHarvester(next, limits, true)
	require.NoError(t, err)
	require.Nil(t, again)
}

func minus(a string, others ...string) string {
	q := resource.MustParse(a)
	for _, b := range others {
		q.Sub(resource.MustParse(b))
	}
	return q.String()
}

// With nothing in flight, one write is all there is to it.
func TestAdoptHarvesterWhenAllIsOver(t *testing.T) {
	rq := harvested(listOf("limits.cpu", "5", "limits.memory", "6Gi"), entryKey, entryValue)
	delete(rq.Annotations, "keep")
	next, err := rancher.AdoptHarvester(rq, limits, false)
	require.NoError(t, err)
	require.Equal(t, "limits.cpu=4 limits.memory=4952Mi", spelled(next.Spec.Hard))
	require.Nil(t, next.Annotations)
}

func TestAdoptNothing(t *testing.T) {
	for _, rq := range []*corev1.ResourceQuota{nil, harvested(limits), harvested(limits, rancher.HarvesterSkip, "true")} {
		next, err := rancher.AdoptHarvester(rq, limits, false)
		require.NoError(t, err)
		require.Nil(t, next)
	}
}

func TestHarvesterSkips(t *testing.T) {
	require.False(t, rancher.HarvesterSkips(nil))
	require.False(t, rancher.HarvesterSkips(harvested(limits, rancher.HarvesterSkip, "yes")))
	require.True(t, rancher.HarvesterSkips(harvested(limits, rancher.HarvesterSkip, "true")))
}

func TestSeedsAreCharged(t *testing.T) {
	record, err := rancher.ReadHarvester(harvested(limits, entryKey, entryValue, namedKey, entryValue))
	require.NoError(t, err)
	hard := quota.Effective(limits, record.InFlight(), limits)
	require.Equal(t, "6", hard.Name("limits.cpu", resource.DecimalSI).String())
	require.Equal(t, "vm1", record.InFlight()[0].VMI)
}
