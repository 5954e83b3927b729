package rancher_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A handover is a quota as Harvester has left it, and a takeover of it.
type handover struct {
	*rancher.Takeover
	t      *testing.T
	client *fake.Clientset
	record *memory.Ledger
}

func newHandover(t *testing.T, quotas ...runtime.Object) *handover {
	h := &handover{t: t, client: fake.NewClientset(quotas...), record: memory.New()}
	h.Takeover = &rancher.Takeover{
		Quotas: h.client.CoreV1(),
		Ledger: h.record,
		Limits: func(context.Context, string) (corev1.ResourceList, error) { return limits, nil },
		List: func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
			live, err := h.client.CoreV1().ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			var listed []*corev1.ResourceQuota
			for i := range live.Items {
				listed = append(listed, &live.Items[i])
			}
			return listed, nil
		},
	}
	return h
}

func (h *handover) adopt() *corev1.ResourceQuota {
	h.t.Helper()
	require.NoError(h.t, h.Adopt(context.Background(), "tenant"))
	rq, err := h.client.CoreV1().ResourceQuotas("tenant").Get(context.Background(), "default-gn4d2", metav1.GetOptions{})
	require.NoError(h.t, err)
	return rq
}

func (h *handover) writes() int {
	n := 0
	for _, action := range h.client.Actions() {
		if action.GetVerb() == "update" {
			n++
		}
	}
	return n
}

var raisedByOne = listOf("limits.cpu", "5", "limits.memory", "6337876Ki")

func TestTakeoverInMidFlight(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue))
	require.NoError(t, h.record.Replace(context.Background(), "tenant", []quota.Migration{moving("a", "vm1", quota.Charged, listOf("limits.cpu", "1"))}))
	rq := h.adopt()
	require.Equal(t, spelled(raisedByOne), spelled(rq.Spec.Hard))
	require.Equal(t, `{"limits.cpu":"4","limits.memory":"4952Mi"}`, rq.Annotations[applier.StaticAnnotation])
	require.NotContains(t, rq.Annotations, entryKey)
	require.Equal(t, rq, h.adopt())
	require.Equal(t, 1, h.writes())
}

func TestTakeoverOfALeak(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue))
	rq := h.adopt()
	require.Equal(t, "limits.cpu=4 limits.memory=4952Mi", spelled(rq.Spec.Hard))
	require.Equal(t, map[string]string{"keep": "me"}, rq.Annotations)
	h.adopt()
	require.Equal(t, 1, h.writes())
}

// H4: each of several quotas is adopted, and one that fails keeps none from it.
func TestH4TakeoverOfSeveralQuotas(t *testing.T) {
	second := harvested(raisedByOne, entryKey, entryValue)
	second.Name = "another"
	plain := harvested(limits)
	plain.Name = "plain"
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue), second, plain)
	h.client.PrependReactor("update", "resourcequotas", func(action k8stesting.Action) (bool, runtime.Object, error) {
		if action.(k8stesting.UpdateAction).GetObject().(*corev1.ResourceQuota).Name != "another" {
			return false, nil, nil
		}
		return true, nil, apierrors.NewConflict(corev1.Resource("resourcequotas"), "another", nil)
	})
	err := h.Adopt(context.Background(), "tenant")
	require.Error(t, err)
	require.ErrorContains(t, err, "adopt ResourceQuota tenant/another")
	rq, err := h.client.CoreV1().ResourceQuotas("tenant").Get(context.Background(), "default-gn4d2", metav1.GetOptions{})
	require.NoError(t, err)
	require.NotContains(t, rq.Annotations, entryKey)
}

// H18: what is malformed is told, and does not keep the quota from being adopted.
func TestH18TakeoverTellsWhatIsMalformed(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue, namedKey, "{"))
	var malformed *rancher.HarvesterError
	require.ErrorAs(t, h.Adopt(context.Background(), "tenant"), &malformed)
	require.Equal(t, namedKey, malformed.Annotation)
	require.Equal(t, map[string]string{"keep": "me"}, h.adopt().Annotations)
}

// A process that cannot know whether anybody has observed yet does not lower the limits.
func TestTakeoverSeedsTheLedger(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue))
	h.Seed = true
	rq := h.adopt()
	require.Equal(t, spelled(raisedByOne), spelled(rq.Spec.Hard))
	seeds, err := h.record.Migrations(context.Background(), "tenant")
	require.NoError(t, err)
	require.True(t, quota.Equal(rq.Spec.Hard, quota.Effective(limits, seeds, raisedByOne)))
}

// As long as the mirror is wanted, adopting changes whose record it is, and then leaves it
// to the applier.
func TestTakeoverMirrors(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue, rancher.HarvesterResync, "false"))
	h.UID = func(_, vmi string) types.UID { return uidOf(vmi) }
	surge := listOf("limits.cpu", "1", "limits.memory", "1267028Ki")
	require.NoError(t, h.record.Replace(context.Background(), "tenant", []quota.Migration{moving("a", "vm1", quota.Charged, surge)}))
	rq := h.adopt()
	require.Contains(t, rq.Annotations, applier.StaticAnnotation)
	require.Equal(t, entryValue, rq.Annotations[rancher.HarvesterUIDPrefix+"uid-of-vm1"])
	require.NotContains(t, rq.Annotations, entryKey)
	require.NotContains(t, rq.Annotations, rancher.HarvesterResync)
	h.adopt()
	require.NoError(t, h.record.Replace(context.Background(), "tenant", nil))
	h.adopt()
	require.Equal(t, 1, h.writes(), "the applier does the rest")

	h.UID = nil // the next release
	rq = h.adopt()
	require.Equal(t, "limits.cpu=4 limits.memory=4952Mi", spelled(rq.Spec.Hard))
	require.Equal(t, map[string]string{"keep": "me"}, rq.Annotations)
}

// H17: limits that cannot be read are none, and those that could not be fetched are
// fetched again.
func TestH17TakeoverWithoutLimits(t *testing.T) {
	h := newHandover(t, harvested(raisedByOne, entryKey, entryValue))
	down := errors.New("the API server is down")
	h.Limits = func(context.Context, string) (corev1.ResourceList, error) { return nil, down }
	require.ErrorIs(t, h.Adopt(context.Background(), "tenant"), down)
	require.Zero(t, h.writes())
	h.Limits = func(context.Context, string) (corev1.ResourceList, error) {
		return rancher.Limits(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "tenant", Annotations: map[string]string{rancher.LimitsAnnotation: "null"},
		}})
	}
	rq := h.adopt()
	require.Equal(t, spelled(raisedByOne), spelled(rq.Spec.Hard))
	require.Equal(t, map[string]string{"keep": "me"}, rq.Annotations)
}
