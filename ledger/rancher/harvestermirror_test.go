package rancher_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

func moving(uid, vmi string, state quota.State, surge corev1.ResourceList) quota.Migration {
	return quota.Migration{UID: types.UID(uid), VMI: vmi, State: state, Surge: surge}
}

func uidOf(vmi string) types.UID {
	if strings.HasPrefix(vmi, "unknown") {
		return ""
	}
	if len(vmi) > 50 {
		return types.UID(strings.TrimPrefix(entryKey, rancher.HarvesterUIDPrefix))
	}
	return types.UID("uid-of-" + vmi)
}

// oldHarvester is what Harvester v1.4.2 and newer make of the limits: those of the
// namespace, and what the annotations add.
func oldHarvester(t *testing.T, rq *corev1.ResourceQuota, asked corev1.ResourceList) corev1.ResourceList {
	t.Helper()
	record, err := rancher.ReadHarvester(rq)
	require.NoError(t, err)
	hard := rq.Spec.Hard.DeepCopy()
	for _, name := range []corev1.ResourceName{"limits.cpu", "limits.memory"} {
		q, ok := asked[name]
		if !ok || q.IsZero() {
			continue
		}
		q = q.DeepCopy()
		for _, e := range record.Entries {
			q.Add(e.Surge[name])
		}
		if name == "limits.memory" {
			q.Add(record.Compensation[name])
		}
		hard[name] = q
	}
	return hard
}

// A Harvester to which somebody rolls back comes to the limits that are there.
func TestMirrorIsWhatHarvesterExpects(t *testing.T) {
	one := listOf("limits.cpu", "1015m", "limits.memory", "2773714688", "requests.cpu", "1")
	tests := map[string]struct {
		hard     corev1.ResourceList
		inFlight []quota.Migration
		keys     []string
	}{
		"not raised": {limits, []quota.Migration{moving("a", "vm1", quota.Blocked, one)}, nil},
		"one": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", "vm1", quota.Charged, one)},
			[]string{rancher.HarvesterUIDPrefix + "uid-of-vm1"},
		},
		"one granted, one deferred": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", "vm1", quota.Blocked, one), moving("b", "vm2", quota.Charged, one)},
			[]string{rancher.HarvesterUIDPrefix + "uid-of-vm2"},
		},
		"the next one of a VM whose last one still counts": {
			listOf("limits.cpu", "6030m", "limits.memory", "10739977728"),
			[]quota.Migration{moving("a", "vm1", quota.Blocked, one), moving("b", "vm1", quota.Charged, one)},
			[]string{rancher.HarvesterUIDPrefix + "uid-of-vm1"},
		},
		"memory above static": {
			listOf("limits.cpu", "5015m", "limits.memory", "8Gi"),
			[]quota.Migration{moving("a", "vm1", quota.Charged, one)},
			[]string{rancher.HarvesterUIDPrefix + "uid-of-vm1", rancher.HarvesterCompensation},
		},
		"H20: a long name": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", strings.Repeat("x", 64), quota.Charged, one)},
			[]string{entryKey},
		},
		"queued ones need nothing": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", "vm0", quota.Queued, one), moving("b", "vm1", quota.Charged, one)},
			[]string{rancher.HarvesterUIDPrefix + "uid-of-vm1"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rq := applier.WithLimits(harvested(limits, rancher.HarvesterSkip, "no", rancher.HarvesterResync, "true", entryKey, entryValue), limits, test.hard)
			before := rq.DeepCopy()
			mirror := rancher.MirrorHarvester(rq, test.inFlight, uidOf)
			require.Equal(t, before, rq)
			require.True(t, quota.Equal(test.hard, mirror.Spec.Hard))
			require.True(t, quota.Equal(test.hard, oldHarvester(t, mirror, limits)), "%s, not %s", spelled(oldHarvester(t, mirror, limits)), spelled(test.hard))
			for _, key := range append(test.keys, "keep", rancher.HarvesterSkip) {
				require.Contains(t, mirror.Annotations, key)
				delete(mirror.Annotations, key)
			}
			delete(mirror.Annotations, applier.StaticAnnotation)
			delete(mirror.Annotations, applier.AppliedAnnotation)
			require.Empty(t, mirror.Annotations)
		})
	}
}

// Harvester removes the entry of a VMI only while that is there, and the compensation only
// with an entry. What it would never remove is not written.
func TestMirrorHasOnlyWhatHarvesterRemoves(t *testing.T) {
	one := listOf("limits.cpu", "1015m", "limits.memory", "2773714688")
	tests := map[string]struct {
		hard     corev1.ResourceList
		inFlight []quota.Migration
		want     corev1.ResourceList // that an old Harvester comes to
	}{
		"a VMI that is gone": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", "unknown", quota.Charged, one)},
			limits,
		},
		"and has a long name": {
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
			[]quota.Migration{moving("a", "unknown"+strings.Repeat("x", 60), quota.Charged, one)},
			limits,
		},
		"and memory above static": {
			listOf("limits.cpu", "5015m", "limits.memory", "8Gi"),
			[]quota.Migration{moving("a", "unknown", quota.Charged, one)},
			limits,
		},
		"one of two": {
			listOf("limits.cpu", "6030m", "limits.memory", "10739977728"),
			[]quota.Migration{moving("a", "unknown", quota.Charged, one), moving("b", "vm1", quota.Blocked, one)},
			listOf("limits.cpu", "5015m", "limits.memory", "7966263040"),
		},
		"no migration at all": {listOf("limits.cpu", "4", "limits.memory", "8Gi"), nil, limits},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mirror := rancher.MirrorHarvester(applier.WithLimits(harvested(limits), limits, test.hard), test.inFlight, uidOf)
			require.True(t, quota.Equal(test.hard, mirror.Spec.Hard))
			require.Equal(t, spelled(test.want), spelled(oldHarvester(t, mirror, limits)))
			record, err := rancher.ReadHarvester(mirror)
			require.NoError(t, err)
			for _, e := range record.Entries {
				require.NotEmpty(t, e.UID)
			}
			if len(record.Entries) == 0 {
				require.Nil(t, record.Compensation)
			}
		})
	}
}

// H20: whatever is in flight, the API server takes the annotations.
func TestH20MirrorIsValid(t *testing.T) {
	var inFlight []quota.Migration
	hard := limits.DeepCopy()
	for i := range 9000 {
		inFlight = append(inFlight, moving(fmt.Sprint("m", i), fmt.Sprintf("VM_%d.x%s", i, strings.Repeat("é", i%3)), quota.Charged, listOf("limits.memory", "1Gi")))
	}
	hard["limits.memory"] = resource.MustParse("20000Gi")
	rq := applier.WithLimits(harvested(limits), limits, hard)
	require.NotEmpty(t, validation.ValidateAnnotations(map[string]string{rancher.HarvesterUIDPrefix + inFlight[1].VMI: ""}, field.NewPath("metadata", "annotations")))
	mirror := rancher.MirrorHarvester(rq, inFlight, uidOf)
	require.Empty(t, validation.ValidateAnnotations(mirror.Annotations, field.NewPath("metadata", "annotations")))
	require.Greater(t, len(mirror.Annotations), 1000)
	raised := oldHarvester(t, mirror, limits)
	require.Negative(t, raised.Name("limits.memory", resource.BinarySI).Cmp(hard["limits.memory"]), "of keys that are not valid nothing is written")
	require.Positive(t, raised.Name("limits.memory", resource.BinarySI).Cmp(resource.MustParse("10000Gi")), "what does not fit is compensation")
}

func TestMirrorLeavesTheUnreadableAlone(t *testing.T) {
	rq := harvested(limits, entryKey, entryValue, applier.StaticAnnotation, "{")
	require.Equal(t, rq, rancher.MirrorHarvester(rq, nil, uidOf))
	require.Nil(t, rancher.MirrorHarvester(nil, nil, uidOf))
}

// The mirror comes and goes with the raise, in the same writes.
func TestMirroredCostsNoWrites(t *testing.T) {
	ctx := context.Background()
	rq := harvested(limits)
	rq.Status = corev1.ResourceQuotaStatus{Hard: limits, Used: limits}
	client := fake.NewClientset(rq)
	record := memory.New()
	a, err := applier.New(applier.Config{
		Ledger: record, Now: func() (now time.Time) { return },
		Quotas: rancher.Mirrored(client.CoreV1(), record, func(_, vmi string) types.UID { return uidOf(vmi) }),
	})
	require.NoError(t, err)
	apply := func(inFlight ...quota.Migration) map[string]string {
		require.NoError(t, record.Replace(ctx, "tenant", inFlight))
		_, err := a.Apply(ctx, "tenant")
		require.NoError(t, err)
		written, err := client.CoreV1().ResourceQuotas("tenant").Get(ctx, rq.Name, metav1.GetOptions{})
		require.NoError(t, err)
		return written.Annotations
	}
	raised := apply(moving("a", "vm1", quota.Blocked, listOf("limits.cpu", "1")))
	require.Equal(t, `{"limits.cpu":"1"}`, raised[rancher.HarvesterUIDPrefix+"uid-of-vm1"])
	require.Equal(t, map[string]string{"keep": "me"}, apply())
	writes := 0
	for _, action := range client.Actions() {
		if action.GetVerb() == "update" {
			writes++
		}
	}
	require.Equal(t, 2, writes)
}
