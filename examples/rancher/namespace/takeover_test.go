package namespace

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
)

// What an old Harvester has raised is adopted if that is wanted, and stays until somebody
// has written the ledger.
func TestTakeover(t *testing.T) {
	const entry = rancher.HarvesterUIDPrefix + "5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01"
	for name, wanted := range map[string]bool{"wanted": true, "switched off": true, "not wanted": false} {
		t.Run(name, func(t *testing.T) {
			rq := static()
			rq.Spec.Hard = list("limits.cpu=5")
			rq.Annotations = map[string]string{entry: `{"limits.cpu":"1"}`}
			s := newServer(t, rq)
			t.Setenv(TakeoverVariable, strconv.FormatBool(wanted))
			q, err := NewQuotas(fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: "n", Annotations: map[string]string{rancher.LimitsAnnotation: `{"limit":{"limitsCpu":"4"}}`},
			}}), func() bool { return name == "switched off" })
			require.NoError(t, err)
			look, err := q.look(s, s)
			require.NoError(t, err)
			_, err = look(ctx, "n")
			require.NoError(t, err)
			require.Equal(t, five, hard(s.stored()))
			if name != "wanted" {
				require.Equal(t, rq.Annotations, s.stored().Annotations)
				return
			}
			require.NotContains(t, s.stored().Annotations, entry)
			require.Equal(t, four, s.stored().Annotations[applier.StaticAnnotation])

			require.NoError(t, q.record.Replace(ctx, "n", nil))
			_, err = look(ctx, "n")
			require.NoError(t, err)
			require.Equal(t, four, hard(s.stored()))
			require.Empty(t, s.stored().Annotations)
		})
	}
}
