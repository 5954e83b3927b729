package migration

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A quota has one event when migrations raise it, however often kube-controller-manager
// lowers it meanwhile, and one at the end. That status.hard is behind an edit of spec.hard is
// none.
func TestEventsOfARaise(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	c, past := &Controller{options: Options{Recorder: recorder}}, &history{}
	limit := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse(amount)}
	}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", UID: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: limit("1")}}
	tell := func(results ...applier.QuotaResult) (events []string) {
		t.Helper()
		c.tell(past, Report{Quotas: []*corev1.ResourceQuota{rq}, Result: applier.Result{Quotas: results}}, Snapshot{}, true)
		for len(recorder.Events) > 0 {
			events = append(events, <-recorder.Events)
		}
		return events
	}
	granted := quota.Decision{Granted: []types.UID{"m"}}

	require.Empty(t, tell(applier.QuotaResult{Name: "q", Static: limit("1"), Hard: limit("64")}))
	require.Empty(t, tell(applier.QuotaResult{Name: "q", Static: limit("1"), Hard: limit("1")}))
	require.Equal(t, []string{"Normal HeadroomRaised The enforced limits are raised for 1 live migration: limits.cpu=2."},
		tell(applier.QuotaResult{Name: "q", Static: limit("1"), Hard: limit("2"), Decision: granted}))
	require.Empty(t, tell(applier.QuotaResult{Name: "q", Static: limit("1"), Hard: limit("1")}))
	require.Empty(t, tell(applier.QuotaResult{Name: "q", Static: limit("1"), Hard: limit("2"), Decision: granted}))
	require.Equal(t, []string{"Normal HeadroomRestored The enforced limits are the static ones again, no live migration needs more: limits.cpu=1."}, tell())
	require.Empty(t, tell())
}
