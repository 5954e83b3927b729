package migration_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// recorded is what caches hold at a moment of a recording, and can be moved on.
type recorded struct {
	events    []recording.Event
	cache     recording.Cache
	namespace string
}

func recordingOf(t *testing.T, name string) *recorded {
	if t != nil { // an example has none
		t.Helper()
	}
	file, err := os.Open("testdata/recordings/" + name + ".jsonl")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	events, err := recording.Read(file)
	if err != nil {
		panic(err)
	}
	return &recorded{events: events, namespace: events[0].Object.GetNamespace()}
}

// until applies the events up to and including the time at.
func (r *recorded) until(at time.Duration) {
	for len(r.events) > 0 && r.events[0].At <= at {
		r.cache.Apply(r.events[0])
		r.events = r.events[1:]
	}
}

func (r *recorded) caches() migration.Caches {
	return migration.Caches{
		Migrations: func(_ context.Context, namespace string) ([]*kubevirtv1.VirtualMachineInstanceMigration, error) {
			return r.cache.Snapshot(namespace).Migrations, nil
		},
		VMIs: func(_ context.Context, namespace string) ([]*kubevirtv1.VirtualMachineInstance, error) {
			return r.cache.Snapshot(namespace).VMIs, nil
		},
		Pods: func(_ context.Context, namespace string) ([]*corev1.Pod, error) {
			return r.cache.Snapshot(namespace).Pods, nil
		},
	}
}

func (r *recorded) quotas(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	return r.cache.Quotas(namespace), nil
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

func TestObserveMakesTheLedgerSayWhatTheCachesSay(t *testing.T) {
	r := recordingOf(t, "basic")
	counted := &writes{Ledger: memory.New()}
	observer := migration.Observer{Caches: r.caches(), Ledger: counted}
	for len(r.events) > 0 {
		r.until(r.events[0].At)
		require.NoError(t, observer.Observe(t.Context(), r.namespace))
		want := migration.InFlight(r.cache.Snapshot(r.namespace))
		if len(want) == 1 && want[0].State == quota.Queued {
			want = nil
		}
		got, err := counted.Migrations(t.Context(), r.namespace)
		require.NoError(t, err)
		require.True(t, ledger.Equal(want, got), "want %v, got %v", want, got)
	}
	require.Equal(t, 3, counted.n, "writes: blocked, charged, over")
}

func TestObserveRecordsQueuedMigrationsOnRequest(t *testing.T) {
	r := recordingOf(t, "basic")
	r.until(1320 * time.Millisecond)
	var told []quota.Migration
	observer := migration.Observer{
		Caches: r.caches(), Ledger: memory.New(), Queued: true,
		Observed: func(_ context.Context, _ string, inFlight []quota.Migration) { told = inFlight },
	}
	require.NoError(t, observer.Observe(t.Context(), r.namespace))
	got, err := observer.Ledger.Migrations(t.Context(), r.namespace)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, quota.Queued, got[0].State)
	require.True(t, ledger.Equal(got, told))
}

// A pod whose node is gone stays for ever, and quota lets go of it after its grace.
func TestObserveLetsGoOfPodsPastTheirGrace(t *testing.T) {
	r := recordingOf(t, "vmidelete")
	r.until(2520 * time.Millisecond) // both pods are deleted and still run
	end := r.cache.Snapshot(r.namespace).Pods[0].DeletionTimestamp.Time
	now := end
	observer := migration.Observer{Caches: r.caches(), Ledger: memory.New(), Now: func() time.Time { return now }}
	require.NoError(t, observer.Observe(t.Context(), r.namespace))
	charged, err := observer.Ledger.Migrations(t.Context(), r.namespace)
	require.NoError(t, err)
	require.Len(t, charged, 1)

	now = end.Add(time.Hour)
	require.NoError(t, observer.Observe(t.Context(), r.namespace))
	over, err := observer.Ledger.Migrations(t.Context(), r.namespace)
	require.NoError(t, err)
	require.Empty(t, over)
}

func TestObserveKeepsTheLedgerWhenACacheFails(t *testing.T) {
	r := recordingOf(t, "basic")
	r.until(2 * time.Second)
	observer := migration.Observer{Caches: r.caches(), Ledger: memory.New()}
	require.NoError(t, observer.Observe(t.Context(), r.namespace))

	down := errors.New("not synced")
	kinds := map[string]func(*migration.Caches){
		"VirtualMachineInstanceMigrations": func(c *migration.Caches) { c.Migrations = failing[kubevirtv1.VirtualMachineInstanceMigration](down) },
		"VirtualMachineInstances":          func(c *migration.Caches) { c.VMIs = failing[kubevirtv1.VirtualMachineInstance](down) },
		"Pods":                             func(c *migration.Caches) { c.Pods = failing[corev1.Pod](down) },
		"LimitRanges":                      func(c *migration.Caches) { c.LimitRanges = failing[corev1.LimitRange](down) },
		"PersistentVolumeClaims":           func(c *migration.Caches) { c.PVCs = failing[corev1.PersistentVolumeClaim](down) },
		"Events":                           func(c *migration.Caches) { c.Events = failing[corev1.Event](down) },
	}
	for kind, breakIt := range kinds {
		observer.Caches = r.caches()
		breakIt(&observer.Caches)
		err := observer.Observe(t.Context(), r.namespace)
		require.ErrorIs(t, err, down)
		require.ErrorContains(t, err, `namespace "`+r.namespace+`": list `+kind)
		kept, err := observer.Ledger.Migrations(t.Context(), r.namespace)
		require.NoError(t, err)
		require.Len(t, kept, 1)
	}
}

func failing[T any](err error) migration.List[T] {
	return func(context.Context, string) ([]*T, error) { return nil, err }
}

func TestNamespaceOfEvents(t *testing.T) {
	meta := func(labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "tenant", Name: "x", Labels: labels}
	}
	launcher := &corev1.Pod{ObjectMeta: meta(map[string]string{"kubevirt.io": "virt-launcher"})}
	for name, c := range map[string]struct {
		object any
		want   string
	}{
		"a VMIM":                  {&kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: meta(nil)}, "tenant"},
		"a VMI":                   {&kubevirtv1.VirtualMachineInstance{ObjectMeta: meta(nil)}, "tenant"},
		"a limit range":           {&corev1.LimitRange{ObjectMeta: meta(nil)}, "tenant"},
		"a virt-launcher pod":     {launcher, "tenant"},
		"an attachment pod":       {&corev1.Pod{ObjectMeta: meta(map[string]string{"kubevirt.io": "hotplug-disk"})}, "tenant"},
		"a missed deletion":       {cache.DeletedFinalStateUnknown{Key: "tenant/x", Obj: launcher}, "tenant"},
		"another pod":             {&corev1.Pod{ObjectMeta: meta(nil)}, ""},
		"a first backend claim":   {&corev1.PersistentVolumeClaim{ObjectMeta: meta(map[string]string{"persistent-state-for": "vm"})}, "tenant"},
		"a second backend claim":  {&corev1.PersistentVolumeClaim{ObjectMeta: meta(map[string]string{"kubevirt.io/migrationName": "m"})}, "tenant"},
		"another claim":           {&corev1.PersistentVolumeClaim{ObjectMeta: meta(nil)}, ""},
		"a backend claim by name": {&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "persistent-state-for-vm"}}, "tenant"},
		"a refusal":               {refusal("", "vm", metav1.Time{}), "tenant"},
		"a quota":                 {&corev1.ResourceQuota{ObjectMeta: meta(nil)}, "tenant"},
		"a namespace":             {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}}, "tenant"},
		"another event":           {&corev1.Event{ObjectMeta: meta(nil)}, ""},
		"something else":          {&corev1.ConfigMap{ObjectMeta: meta(nil)}, ""},
		"nothing":                 {nil, ""},
	} {
		require.Equal(t, c.want, migration.Namespace(c.object), name)
	}
}

func TestFromIndexer(t *testing.T) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	mine := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "mine"}}
	require.NoError(t, indexer.Add(mine))
	require.NoError(t, indexer.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "theirs"}}))

	pods, err := migration.FromIndexer[corev1.Pod](indexer)(t.Context(), "tenant")
	require.NoError(t, err)
	require.Equal(t, []*corev1.Pod{mine}, pods)

	_, err = migration.FromIndexer[corev1.LimitRange](indexer)(t.Context(), "tenant")
	require.EqualError(t, err, "the cache holds a *v1.Pod, not a *v1.LimitRange")

	unindexed := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	_, err = migration.FromIndexer[corev1.Pod](unindexed)(t.Context(), "tenant")
	require.Error(t, err)
}

func TestTyped(t *testing.T) {
	r := recordingOf(t, "basic")
	r.until(2 * time.Second)
	vmim := r.cache.Snapshot(r.namespace).Migrations[0].DeepCopy()
	vmim.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "virt-controller"}}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(vmim)
	require.NoError(t, err)
	typed, err := migration.Typed(&unstructured.Unstructured{Object: raw})
	require.NoError(t, err)
	vmim.ManagedFields = nil
	require.Equal(t, vmim, typed)

	pod := &corev1.Pod{}
	same, err := migration.Typed(pod)
	require.NoError(t, err)
	require.Same(t, pod, same)

	bad := &unstructured.Unstructured{Object: map[string]any{
		"kind": "VirtualMachineInstance", "metadata": map[string]any{"namespace": "tenant", "name": "vm"}, "spec": "nonsense",
	}}
	_, err = migration.Typed(bad)
	require.ErrorContains(t, err, "VirtualMachineInstance tenant/vm: ")
}

func TestFromStore(t *testing.T) {
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	tenant := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}}
	require.NoError(t, store.Add(tenant))
	require.NoError(t, store.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}))
	get := migration.FromStore(store)
	got, err := get(t.Context(), "tenant")
	require.NoError(t, err)
	require.Same(t, tenant, got)
	got, err = get(t.Context(), "gone")
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = get(t.Context(), "node")
	require.EqualError(t, err, "the cache holds a *v1.Node, not a *v1.Namespace")
}

// The ratio of the limits that KubeVirt sets stands on the namespace.
func TestObserveReadsTheRatioOfTheNamespace(t *testing.T) {
	r := recordingOf(t, "autolimits")
	var vmim time.Duration
	for _, e := range r.events {
		if _, ok := e.Object.(*kubevirtv1.VirtualMachineInstanceMigration); ok {
			vmim = e.At
			break
		}
	}
	r.until(vmim)
	caches := r.caches()
	caches.Namespace = func(_ context.Context, name string) (*corev1.Namespace, error) {
		require.Equal(t, r.namespace, name)
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: "4"}}}, nil
	}
	memoryLimit := func(caches migration.Caches) string {
		s, err := caches.Snapshot(t.Context(), r.namespace)
		require.NoError(t, err)
		inFlight := migration.InFlight(s)
		require.Len(t, inFlight, 1)
		return inFlight[0].Surge.Name(corev1.ResourceLimitsMemory, "").String()
	}
	require.NotEqual(t, memoryLimit(r.caches()), memoryLimit(caches))

	down := errors.New("not synced")
	caches.Namespace = func(context.Context, string) (*corev1.Namespace, error) { return nil, down }
	_, err := caches.Snapshot(t.Context(), r.namespace)
	require.ErrorIs(t, err, down)
	require.ErrorContains(t, err, "get the Namespace")
}
