package proof

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A target pod is refused. Then the program comes, and so does the target pod; and that
// of the next migration. Each costs two writes.
func TestRefusedMigration(t *testing.T) {
	s := newScene(t)
	s.migrate("first", "")
	s.refused()
	p := startProgram(t, asApplied, nil)
	s.await("first", kubevirtv1.MigrationSucceeded)
	s.settled()
	s.migrate("second", "")
	s.await("second", kubevirtv1.MigrationSucceeded)
	s.settled()
	static, raised := spelled(s.plus(0)), spelled(s.plus(1))
	require.Equal(t, []string{raised, static, raised, static}, s.writes(p))
}

// An old Harvester is replaced in the middle of a migration, when an entry of an earlier one
// has leaked. What runs keeps its room, and what has leaked is given back.
func TestTakeoverInMidFlight(t *testing.T) {
	s := newScene(t)
	used := s.static.Spec.Hard
	asked := fmt.Sprintf(`{"limit":{"limitsCpu":%q,"limitsMemory":%q}}`, quantity(used, corev1.ResourceLimitsCPU), quantity(used, corev1.ResourceLimitsMemory))
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, rancher.LimitsAnnotation, asked)
	_, err := admin.CoreV1().Namespaces().Patch(t.Context(), s.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
	s.write(func(rq *corev1.ResourceQuota) {
		rq.Annotations = map[string]string{
			rancher.HarvesterUIDPrefix + string(s.vmi.UID):                      spelled(used),
			rancher.HarvesterUIDPrefix + "5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01": spelled(used),
			rancher.HarvesterResync:                                             "false",
		}
		rq.Spec.Hard = s.plus(2)
	})
	s.migrate("first", sim.Hang)
	s.await("first", kubevirtv1.MigrationRunning)

	p := startProgram(t, "successor", nil)
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		require.Equal(c, spelled(s.plus(1)), spelled(rq.Spec.Hard))
		require.Equal(c, spelled(used), rq.Annotations[applier.StaticAnnotation])
		require.Len(c, rq.Annotations, 2, "Harvester's are gone")
	})
	require.NotEmpty(t, s.ledger(t))
	s.await("first", kubevirtv1.MigrationRunning)

	_, err = s.vmims.Patch(t.Context(), "first", fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, sim.MigrationAnnotation))
	require.NoError(t, err)
	s.await("first", kubevirtv1.MigrationSucceeded)
	s.settled()
	require.Equal(t, []string{spelled(s.plus(2)), spelled(s.plus(1)), spelled(s.plus(0))}, s.writes(p))
	ns, err := admin.CoreV1().Namespaces().Get(t.Context(), s.namespace, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, asked, ns.Annotations[rancher.LimitsAnnotation])
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) string {
	q := list[name]
	return q.String()
}

// With --ledger-only and without the right to write quotas, the program keeps the ledger,
// for Rancher to read.
func TestLedgerOnly(t *testing.T) {
	s := newScene(t)
	p := startProgram(t, "ledger-only", func(text string) string {
		before, after, found := strings.Cut(text, "[resourcequotas]\n  verbs: [get, list, watch, update]")
		require.True(t, found)
		return before + "[resourcequotas]\n  verbs: [get, list, watch]" + after
	}, "--ledger-only")
	s.migrate("first", "")
	s.refused()
	s.eventually(func(c *assert.CollectT) { require.NotEmpty(c, s.ledger(c)) })
	require.NoError(t, s.vmims.Delete(t.Context(), "first"))
	s.settled()
	require.Empty(t, s.writes(p))
}
