package rancher_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

var ctx = context.Background()

// epoch is when the tests happen, all of them.
func epoch() time.Time { return time.Date(2026, time.August, 3, 14, 5, 6, 0, time.UTC) }

// A store is an API server with a ledger and a shim. Raw is the undecorated client, and
// decorated the other one, both of namespace "tenant".
type store struct {
	t         testing.TB
	clients   typedcorev1.ResourceQuotasGetter
	raw       typedcorev1.ResourceQuotaInterface
	decorated typedcorev1.ResourceQuotaInterface
	record    *memory.Ledger
	config    rancher.Config
	shim      *rancher.Shim
	off       bool
}

func newStore(t testing.TB, configure ...func(*rancher.Config)) *store {
	clients := fake.New(fake.Config{}).Client(fake.RancherUser).CoreV1()
	s := &store{t: t, clients: clients, raw: clients.ResourceQuotas("tenant"), record: memory.New()}
	s.config = rancher.Config{Ledger: s.record, Disabled: func() bool { return s.off }}
	for _, change := range configure {
		change(&s.config)
	}
	shim, err := rancher.New(s.config)
	require.NoError(t, err)
	s.shim, s.decorated = shim, shim.Client(clients).ResourceQuotas("tenant")
	return s
}

// create stores a quota as it is given, its status too.
func (s *store) create(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	s.t.Helper()
	created, err := s.raw.Create(ctx, rq, metav1.CreateOptions{})
	require.NoError(s.t, err)
	created.Status = rq.Status
	created, err = s.raw.UpdateStatus(ctx, created, metav1.UpdateOptions{})
	require.NoError(s.t, err)
	return created
}

// stored returns what is in the API server.
func (s *store) stored() *corev1.ResourceQuota {
	s.t.Helper()
	rq, err := s.raw.Get(ctx, "q", metav1.GetOptions{})
	require.NoError(s.t, err)
	return rq
}

// shown returns what the decorated client says.
func (s *store) shown() *corev1.ResourceQuota {
	s.t.Helper()
	rq, err := s.decorated.Get(ctx, "q", metav1.GetOptions{})
	require.NoError(s.t, err)
	return rq
}

func (s *store) inFlight(migrations ...quota.Migration) {
	s.t.Helper()
	require.NoError(s.t, s.record.Replace(ctx, "tenant", migrations))
}

// write is what Rancher does: it takes what its cache holds, and sets its own limits.
func (s *store) write(from *corev1.ResourceQuota, limits string) (*corev1.ResourceQuota, error) {
	rq := from.DeepCopy()
	rq.Spec = corev1.ResourceQuotaSpec{Hard: list(limits)}
	return s.decorated.Update(ctx, rq, metav1.UpdateOptions{})
}

// requireStored expects these limits in the API server, and these to be shown.
func (s *store) requireStored(hard, static string) {
	s.t.Helper()
	require.Equal(s.t, hard, amounts(s.stored().Spec.Hard))
	require.Equal(s.t, static, amounts(s.shown().Spec.Hard))
	written, err := applier.Static(s.stored())
	require.NoError(s.t, err)
	require.Equal(s.t, static, amounts(written))
	if hard == static {
		require.Empty(s.t, s.stored().Annotations)
	}
}

// quotaOf returns a quota called q, as Rancher labels it.
func quotaOf(limits string) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "q", Labels: map[string]string{fake.RancherLabel: "true"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: list(limits)},
	}
}

// raised returns one whose limits are raised.
func raised(static, hard string) *corev1.ResourceQuota {
	return applier.WithLimits(quotaOf(static), list(static), list(hard))
}

// used sets the usage of rq, and returns it.
func used(rq *corev1.ResourceQuota, usage string) *corev1.ResourceQuota {
	rq.Status.Used = list(usage)
	return rq
}

// list reads "limits.cpu=2 limits.memory=4Gi".
func list(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, part := range strings.Fields(text) {
		name, amount, _ := strings.Cut(part, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

// amounts is the reverse of list.
func amounts(l corev1.ResourceList) string {
	value, err := json.Marshal(l)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(`{`, "", `}`, "", `"`, "", ":", "=", ",", " ").Replace(string(value))
}

func jsonOf(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

func inState(uid types.UID, state quota.State, surge string) quota.Migration {
	return quota.Migration{UID: uid, VMI: "vm-" + string(uid), State: state, Surge: list(surge)}
}

func blocked(uid types.UID, surge string) quota.Migration {
	return inState(uid, quota.Blocked, surge)
}

func charged(uid types.UID, surge string) quota.Migration {
	return inState(uid, quota.Charged, surge)
}
