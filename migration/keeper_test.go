package migration_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// kept is a Keeper on a recording in which quota refuses the target pod.
type kept struct {
	migration.Keeper
	*recorded
	client *fake.Clientset
	ledger ledger.Ledger
}

func newKept(t *testing.T, record ledger.Ledger) *kept {
	t.Helper()
	k := &kept{recorded: recordingOf(t, "basic"), ledger: record}
	k.until(2 * time.Second)
	k.client = fake.NewClientset(k.cache.Quotas(k.namespace)[0])
	now := func() time.Time { return start }
	a, err := applier.New(applier.Config{Ledger: record, Quotas: k.client.CoreV1(), Now: now})
	require.NoError(t, err)
	k.Keeper = migration.Keeper{
		Observer: &migration.Observer{Caches: k.caches(), Ledger: record, Now: now},
		Applier:  a,
		Nudger:   &migration.Nudger{Caches: k.caches(), Quotas: k.quotas, Now: now},
	}
	return k
}

func (k *kept) hard(t *testing.T) string {
	t.Helper()
	rq, err := k.client.CoreV1().ResourceQuotas(k.namespace).Get(t.Context(), "q", metav1.GetOptions{})
	require.NoError(t, err)
	return rq.Spec.Hard.Name(corev1.ResourceLimitsMemory, "").String()
}

func TestKeepObservesAndApplies(t *testing.T) {
	k := newKept(t, memory.New())
	again, err := k.Keep(t.Context(), k.namespace)
	require.NoError(t, err)
	require.Zero(t, again)
	require.Equal(t, "5547429376", k.hard(t))
}

func TestKeepAsksAgainWhenTheFirstOfThemWantsTo(t *testing.T) {
	k := newKept(t, memory.New())
	k.until(3380 * time.Millisecond) // status.hard has room: the nudger waits for a second
	again, err := k.Keep(t.Context(), k.namespace)
	require.NoError(t, err)
	require.Equal(t, time.Second, again)

	k.Applier = nil // the quotas are somebody else's
	again, err = k.Keep(t.Context(), k.namespace)
	require.NoError(t, err)
	require.Equal(t, time.Second, again)
}

func forbid(client *fake.Clientset) {
	client.PrependReactor("update", "resourcequotas", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("resourcequotas"), "q", errors.New("it is managed"))
	})
}

// What trying again does not cure is no error for the queue.
func TestKeepLeavesRefusalsToTheAdministrator(t *testing.T) {
	k := newKept(t, memory.New())
	forbid(k.client)
	again, err := k.Keep(t.Context(), k.namespace)
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, again)
	require.Equal(t, "2773714688", k.hard(t))
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

// One entry of the ledger that nobody can read does not keep the others from their room,
// and stays an error, also beside another one.
func TestKeepGoesOnAfterAnError(t *testing.T) {
	k := newKept(t, partlyRead{memory.New()})
	_, err := k.Keep(t.Context(), k.namespace)
	require.ErrorIs(t, err, ledger.ErrPartial)
	require.Equal(t, "5547429376", k.hard(t))

	k = newKept(t, partlyRead{memory.New()})
	require.ErrorIs(t, k.Observer.Observe(t.Context(), k.namespace), ledger.ErrPartial)
	k.Observer = nil
	forbid(k.client)
	_, err = k.Keep(t.Context(), k.namespace)
	require.ErrorIs(t, err, ledger.ErrPartial)
	require.NotErrorIs(t, err, applier.ErrForbidden)

	k = newKept(t, memory.New())
	require.NoError(t, k.Observer.Observe(t.Context(), k.namespace))
	down := errors.New("not synced")
	k.Observer.Caches.Pods = failing[corev1.Pod](down)
	_, err = k.Keep(t.Context(), k.namespace)
	require.ErrorIs(t, err, down)
	require.Equal(t, "5547429376", k.hard(t))

	k = newKept(t, memory.New())
	k.Nudger.Quotas = failing[corev1.ResourceQuota](down)
	_, err = k.Keep(t.Context(), k.namespace)
	require.ErrorIs(t, err, down)
}

func TestKeepOfNothing(t *testing.T) {
	again, err := migration.Keeper{}.Keep(t.Context(), "tenant")
	require.NoError(t, err)
	require.Zero(t, again)
}

func TestInProgress(t *testing.T) {
	vmim := func(phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
		return &kubevirtv1.VirtualMachineInstanceMigration{
			ObjectMeta: metav1.ObjectMeta{UID: types.UID("a")},
			Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: phase},
		}
	}
	require.True(t, migration.InProgress(vmim("")))
	require.True(t, migration.InProgress(vmim(kubevirtv1.MigrationPending)))
	require.True(t, migration.InProgress(vmim(kubevirtv1.MigrationRunning)))
	require.False(t, migration.InProgress(vmim(kubevirtv1.MigrationSucceeded)))
	require.False(t, migration.InProgress(vmim(kubevirtv1.MigrationFailed)))
	require.False(t, migration.InProgress(&corev1.Pod{}))
	require.False(t, migration.InProgress(nil))
}
