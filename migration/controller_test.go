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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
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
		Now:        func() time.Time { return s.now },
		Reconciled: func(_ context.Context, r migration.Report) { s.reports = append(s.reports, r) },
	}
	for _, c := range change {
		c(&s.options)
	}
	s.ledger = s.options.Ledger
	s.Controller = embedded(t, s.client, s.options)
	return s
}

// embedded returns a Controller on the caches of an embedder. Without Patch it nudges nobody.
func embedded(t testing.TB, core kubernetes.Interface, options migration.Options) *migration.Controller {
	t.Helper()
	if options.Recorder == nil {
		options.Recorder = &record.FakeRecorder{}
	}
	if options.Patch == nil {
		options.Patch = func(context.Context, string, string, []byte) error { return nil }
	}
	c, err := migration.NewController(migration.Clients{Core: core}, options)
	require.NoError(t, err)
	return c
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

// KubeVirt creates no target pod for 20 s after a migration of a drain has failed, so no room is
// made before; and then it is made although nothing has changed.
func TestBackOff(t *testing.T) {
	s := newScene(t)
	other := s.vmi("vm2")
	s.launcher(other, "source2", "")
	failed := s.vmim(s.vm, "m1", kubevirtv1.MigrationFailed)
	next := s.vmim(s.vm, "m2", kubevirtv1.MigrationPending)
	for _, m := range []*kubevirtv1.VirtualMachineInstanceMigration{failed, next} {
		metav1.SetMetaDataAnnotation(&m.ObjectMeta, kubevirtv1.EvacuationMigrationAnnotation, "node01")
	}
	s.refused(other, "m3")
	failed.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{{
		Phase: kubevirtv1.MigrationFailed, PhaseTransitionTimestamp: metav1.NewTime(s.clock.Add(-10 * time.Second)),
	}}
	migrations, _ := indexed(s.Migrations...)
	vmis, _ := indexed(s.VMIs...)
	pods, _ := indexed(s.Pods...)
	quotas, _ := indexed[corev1.ResourceQuota]()
	var found []quota.Migration
	c := embedded(t, fake.NewClientset(), migration.Options{
		Caches: &migration.Caches{Migrations: migrations, VMIs: vmis, Pods: pods}, Quotas: quotas,
		Now:        func() time.Time { return s.clock },
		Reconciled: func(_ context.Context, r migration.Report) { found = r.InFlight },
	})
	for left := 10 * time.Second; left > 0; {
		again, err := c.Reconcile(t.Context(), "tenant")
		require.NoError(t, err)
		require.Equal(t, []types.UID{"uid-m3"}, uids(found), "%v before the end", left)
		require.Positive(t, again)
		require.LessOrEqual(t, again, left)
		s.clock, left = s.clock.Add(again), left-again
	}
	_, err := c.Reconcile(t.Context(), "tenant")
	require.NoError(t, err)
	require.Equal(t, []types.UID{"uid-m2", "uid-m3"}, uids(found))

	s.Now = s.clock.Add(-time.Second)
	require.Equal(t, []types.UID{"uid-m3"}, uids(migration.InFlight(s.Snapshot)))
	s.Now = time.Time{}
	require.Equal(t, []types.UID{"uid-m2", "uid-m3"}, uids(migration.InFlight(s.Snapshot)), "nobody knows the time")
	s.Now = s.clock.Add(-time.Second)
	condition(next, rejected, corev1.ConditionTrue)
	require.Equal(t, []types.UID{"uid-m2", "uid-m3"}, uids(migration.InFlight(s.Snapshot)), "KubeVirt has tried")
}

func uids(migrations []quota.Migration) []types.UID {
	uids := make([]types.UID, len(migrations))
	for i, m := range migrations {
		uids[i] = m.UID
	}
	return uids
}
