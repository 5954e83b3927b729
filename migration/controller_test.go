package migration_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

var start = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)

// A controlled recording is a Controller on a recording.
type controlled struct {
	*migration.Controller
	*recorded
	options migration.Options
	client  *fake.Clientset
	ledger  ledger.Ledger
	now     time.Time
	reports []migration.Report
}

// newControlled returns one in which nothing has happened yet; change may change the options.
func newControlled(t *testing.T, name string, change ...func(*migration.Options)) *controlled {
	t.Helper()
	s := &controlled{recorded: recordingOf(t, name), now: start, ledger: memory.New(), client: fake.NewClientset()}
	caches := s.caches()
	s.options = migration.Options{
		Caches: &caches, Quotas: s.quotas, Ledger: s.ledger, Recorder: record.NewFakeRecorder(1000),
		Patch:      func(context.Context, string, string, []byte) error { return nil },
		Now:        func() time.Time { return s.now },
		Reconciled: func(_ context.Context, r migration.Report) { s.reports = append(s.reports, r) },
	}
	for _, c := range change {
		c(&s.options)
	}
	s.ledger = s.options.Ledger
	var err error
	s.Controller, err = migration.NewController(migration.Clients{Core: s.client}, s.options)
	require.NoError(t, err)
	return s
}

// refusedOnce returns one in which quota has refused the target pod.
func refusedOnce(t *testing.T, change ...func(*migration.Options)) *controlled {
	t.Helper()
	s := newControlled(t, "basic", change...)
	s.until(2 * time.Second)
	require.NoError(t, s.client.Tracker().Add(s.cache.Quotas(s.namespace)[0]))
	return s
}

func (s *controlled) reconcile(t *testing.T) time.Duration {
	t.Helper()
	after, err := s.Reconcile(t.Context(), s.namespace)
	require.NoError(t, err)
	return after
}

// enforced is status.hard of limits.memory as it was written last.
func (s *controlled) enforced(t *testing.T) string {
	t.Helper()
	rq, err := s.client.CoreV1().ResourceQuotas(s.namespace).Get(t.Context(), "q", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "2773714688", rq.Spec.Hard.Name(corev1.ResourceLimitsMemory, "").String(), "spec.hard is its owner's")
	return rq.Status.Hard.Name(corev1.ResourceLimitsMemory, "").String()
}

func recordOnly(o *migration.Options) { o.RecordOnly = true }

func TestReconcileRecordsAndEnforces(t *testing.T) {
	s := refusedOnce(t)
	require.Equal(t, time.Second, s.reconcile(t), "when the offer lapses")
	require.Equal(t, "5547429376", s.enforced(t))
	require.Len(t, s.reports, 1)
	require.Equal(t, applier.Raised, s.reports[0].Result.Quotas[0].Action)
	got, err := s.ledger.Migrations(t.Context(), s.namespace)
	require.NoError(t, err)
	require.True(t, ledger.Equal(got, s.reports[0].InFlight))
}

func TestNewControllerNeedsWhatItNeeds(t *testing.T) {
	core, caches := fake.NewClientset(), migration.Caches{}
	_, err := migration.NewController(migration.Clients{Core: core}, migration.Options{})
	require.ErrorContains(t, err, "both clients")
	_, err = migration.NewController(migration.Clients{Core: core}, migration.Options{
		Caches: &caches, Patch: func(context.Context, string, string, []byte) error { return nil },
	})
	require.ErrorContains(t, err, "Caches and Quotas")
}

// writes counts what an Observer writes.
type writes struct {
	ledger.Ledger
	n int
}

func (w *writes) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	before, err := w.Migrations(ctx, namespace)
	if err != nil {
		return err
	}
	if !ledger.Equal(before, migrations) {
		w.n++
	}
	return w.Ledger.Replace(ctx, namespace, migrations)
}

// A stored ledger costs a write when something changes, and none otherwise.
func TestRecordOnly(t *testing.T) {
	counted := &writes{Ledger: memory.New()}
	s := newControlled(t, "basic", recordOnly, func(o *migration.Options) { o.Ledger = counted })
	for len(s.events) > 0 {
		s.until(s.events[0].At)
		s.reconcile(t)
		want := migration.InFlight(s.cache.Snapshot(s.namespace))
		got, err := counted.Migrations(t.Context(), s.namespace)
		require.NoError(t, err)
		require.True(t, ledger.Equal(want, got), "want %v, got %v", want, got)
	}
	require.LessOrEqual(t, counted.n, 6, "writes: queued, blocked, charged, handed over, ended, over")
	require.Empty(t, s.client.Actions())
}

// A pod whose node is gone stays for ever, and quota lets go of it after its grace.
func TestReconcileLetsGoOfPodsPastTheirGrace(t *testing.T) {
	s := newControlled(t, "vmidelete", recordOnly)
	s.until(2520 * time.Millisecond) // both pods are deleted and still run
	end := s.cache.Snapshot(s.namespace).Pods[0].DeletionTimestamp.Time
	s.now = end
	s.reconcile(t)
	charged, err := s.ledger.Migrations(t.Context(), s.namespace)
	require.NoError(t, err)
	require.Len(t, charged, 1)
	s.now = end.Add(time.Hour)
	s.reconcile(t)
	over, err := s.ledger.Migrations(t.Context(), s.namespace)
	require.NoError(t, err)
	require.Empty(t, over)
}

func forbid(client *fake.Clientset) {
	client.PrependReactor("update", "resourcequotas", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("resourcequotas"), "q", errors.New("it is managed"))
	})
}

// A refusal is for the administrator, and no error for the work queue.
func TestReconcileLeavesRefusalsToTheAdministrator(t *testing.T) {
	s := refusedOnce(t)
	forbid(s.client)
	s.reconcile(t)
	require.Equal(t, "2773714688", s.enforced(t))
	require.ErrorIs(t, s.reports[0].Result.Quotas[0].Err, applier.ErrForbidden)
}

// A partlyRead is a ledger of which a part cannot be read.
type partlyRead struct{ ledger.Ledger }

func (b partlyRead) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	migrations, err := b.Ledger.Migrations(ctx, namespace)
	return migrations, errors.Join(err, ledger.ErrPartial)
}

func (b partlyRead) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	return errors.Join(b.Ledger.Replace(ctx, namespace, migrations), ledger.ErrPartial)
}

// One entry of the ledger that cannot be read does not keep the others from their room, and
// stays an error, also beside another one.
func TestReconcileGoesOnAfterAnError(t *testing.T) {
	partly := func(o *migration.Options) { o.Ledger = partlyRead{memory.New()} }
	s := refusedOnce(t, partly)
	_, err := s.Reconcile(t.Context(), s.namespace)
	require.ErrorIs(t, err, ledger.ErrPartial)
	require.Equal(t, "5547429376", s.enforced(t))

	s = refusedOnce(t, partly)
	forbid(s.client)
	_, err = s.Reconcile(t.Context(), s.namespace)
	require.ErrorIs(t, err, ledger.ErrPartial)
	require.NotErrorIs(t, err, applier.ErrForbidden)
}

// An unread is a ledger that cannot be read while err is not nil.
type unread struct {
	ledger.Ledger
	err error
}

func (u *unread) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	if u.err != nil {
		return nil, u.err
	}
	return u.Ledger.Migrations(ctx, namespace)
}

// A raise has not ended because nobody knows what is in flight.
func TestNoRestoredEventWithoutAResult(t *testing.T) {
	broken := &unread{Ledger: memory.New()}
	s := refusedOnce(t, func(o *migration.Options) { o.Ledger = broken })
	events := s.options.Recorder.(*record.FakeRecorder).Events
	restored := func() (n int) {
		for len(events) > 0 {
			if strings.Contains(<-events, "HeadroomRestored") {
				n++
			}
		}
		return n
	}
	s.reconcile(t)
	broken.err = errors.New("it is away")
	_, err := s.Reconcile(t.Context(), s.namespace)
	require.ErrorIs(t, err, broken.err)
	require.Zero(t, restored())
	broken.err = nil
	s.until(time.Hour)
	s.reconcile(t)
	require.Equal(t, 1, restored())
}

// A cache that fails leaves the ledger as it was, and what it says is enforced.
func TestReconcileKeepsTheLedgerWhenACacheFails(t *testing.T) {
	down := errors.New("not synced")
	for kind, breakIt := range map[string]func(*migration.Caches){
		"VirtualMachineInstanceMigrations": func(c *migration.Caches) { c.Migrations = failing[kubevirtv1.VirtualMachineInstanceMigration](down) },
		"VirtualMachineInstances":          func(c *migration.Caches) { c.VMIs = failing[kubevirtv1.VirtualMachineInstance](down) },
		"Pods":                             func(c *migration.Caches) { c.Pods = failing[corev1.Pod](down) },
		"LimitRanges":                      func(c *migration.Caches) { c.LimitRanges = failing[corev1.LimitRange](down) },
		"PersistentVolumeClaims":           func(c *migration.Caches) { c.PVCs = failing[corev1.PersistentVolumeClaim](down) },
		"Events":                           func(c *migration.Caches) { c.Events = failing[corev1.Event](down) },
	} {
		record := memory.New()
		s := refusedOnce(t, func(o *migration.Options) {
			o.Ledger = record
			breakIt(o.Caches)
		})
		require.NoError(t, record.Replace(t.Context(), s.namespace, migration.InFlight(s.cache.Snapshot(s.namespace))))
		_, err := s.Reconcile(t.Context(), s.namespace)
		require.ErrorIs(t, err, down)
		require.ErrorContains(t, err, `namespace "`+s.namespace+`": list `+kind)
		kept, err := record.Migrations(t.Context(), s.namespace)
		require.NoError(t, err)
		require.Len(t, kept, 1)
		require.Equal(t, "5547429376", s.enforced(t))
	}
}

func failing[T any](err error) migration.List[T] {
	return func(context.Context, string) ([]*T, error) { return nil, err }
}
