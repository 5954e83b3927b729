package main

import (
	"testing"

	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// A vmiStore is the API server and the cache of VMIs in one.
type vmiStore struct {
	indexer cache.Indexer
	writes  int
}

func (s *vmiStore) Update(vmi *kubevirtv1.VirtualMachineInstance) (*kubevirtv1.VirtualMachineInstance, error) {
	s.writes++
	return vmi, s.indexer.Update(vmi)
}

func newVMIStore(t *testing.T, vmis ...*kubevirtv1.VirtualMachineInstance) (*vmiStore, *vmimHandler) {
	t.Helper()
	s := &vmiStore{indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
	for _, vmi := range vmis {
		require.NoError(t, s.indexer.Add(vmi))
	}
	return s, &vmimHandler{
		cache: generic.NewCache[*kubevirtv1.VirtualMachineInstance](s.indexer, schema.GroupResource{Resource: "virtualmachineinstances"}),
		vmis:  s,
	}
}

func vmim(uid types.UID, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: string(uid), UID: uid},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "vm"},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: phase},
	}
}

func TestStateIsShown(t *testing.T) {
	store, handler := newVMIStore(t, &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "vm"}})
	shown := func() map[string]string {
		vmi := try.Must(handler.cache.Get("tenant", "vm"))(t)
		return vmi.Annotations
	}
	see := func(phase kubevirtv1.VirtualMachineInstanceMigrationPhase, deleted bool) map[string]string {
		m := vmim("first", phase)
		if deleted {
			m.DeletionTimestamp = &metav1.Time{}
		}
		try.Must(handler.onMigration("", m))(t)
		return shown()
	}
	require.Equal(t, "Pending migration", see(kubevirtv1.MigrationPhaseUnset, false)[stateAnnotation])
	require.Equal(t, "Pending migration", see(kubevirtv1.MigrationPending, false)[stateAnnotation])
	require.Equal(t, 1, store.writes, "the same state is not written twice")
	require.Equal(t, "Migrating", see(kubevirtv1.MigrationRunning, false)[stateAnnotation])
	require.Equal(t, "Aborting migration", see(kubevirtv1.MigrationRunning, true)[stateAnnotation])
	require.Empty(t, see(kubevirtv1.MigrationFailed, true))
}

// An old migration that is seen again, as after a restart, says nothing about the one that
// runs now.
func TestOldMigrationIsNotShown(t *testing.T) {
	store, handler := newVMIStore(t, &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{
		Namespace: "tenant", Name: "vm", Annotations: map[string]string{uidAnnotation: "second", stateAnnotation: "Migrating"},
	}})
	try.Must(handler.onMigration("", vmim("first", kubevirtv1.MigrationSucceeded)))(t)
	require.Zero(t, store.writes)
}

func TestMigrationWithoutVM(t *testing.T) {
	store, handler := newVMIStore(t)
	try.Must(handler.onMigration("", vmim("first", kubevirtv1.MigrationRunning)))(t)
	try.Must(handler.onMigration("tenant/first", nil))(t)
	require.Zero(t, store.writes)
}
