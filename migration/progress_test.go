package migration_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A source pod that outlives its migration is found after a restart, unless that was long ago.
func TestControllerFindsLosingPods(t *testing.T) {
	s := serve(t, "basic", 5*time.Second)
	vmim := s.cache.Snapshot(s.namespace).Migrations[0]
	require.True(t, vmim.IsFinal())
	soon := func() time.Time { return vmim.CreationTimestamp.Add(time.Minute) }
	reports := run(t.Context(), t, s.clients(), migration.Options{Now: soon, Resync: 20 * time.Millisecond})
	require.Equal(t, quota.Charged, await(reports, 1).InFlight[0].State)

	s = serve(t, "basic", 5*time.Second)
	late := func() time.Time { return vmim.CreationTimestamp.Add(2 * time.Hour) }
	reports = run(t.Context(), t, s.clients(), migration.Options{Now: late, Resync: 20 * time.Millisecond})
	for range 3 {
		require.Empty(t, (<-reports).InFlight)
	}
	require.Zero(t, s.lists("pods"))
}

// A migration that was over at the start is looked at once.
func TestControllerLooksOnce(t *testing.T) {
	s := serve(t, "basic", time.Minute)
	now := s.cache.Snapshot(s.namespace).Migrations[0].CreationTimestamp.Add(time.Minute)
	var later time.Duration
	reports := run(t.Context(), t, s.clients(), migration.Options{
		Workers: 1, Resync: 20 * time.Millisecond,
		Now: func() time.Time { later += time.Second; return now.Add(later) }, // a minute is soon over
	})
	for range 100 {
		require.Empty(t, (<-reports).InFlight)
	}
	require.Equal(t, 1, s.lists("pods"))
	another := s.cache.Snapshot(s.namespace).Migrations[0].DeepCopy()
	another.Name, another.UID, another.Status = "another", "another", kubevirtv1.VirtualMachineInstanceMigrationStatus{}
	s.add(t, vmimResource, "VirtualMachineInstanceMigration", another)
	await(reports, 1)
	require.Equal(t, 2, s.lists("pods"), "it was left in the meantime")
}

// With a client of metadata no migration is read that is over.
func TestControllerReadsMetadata(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	scheme := runtime.NewScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	clients := s.clients()
	objects := []runtime.Object{}
	for i, name := range []string{s.cache.Snapshot(s.namespace).Migrations[0].Name, "over"} {
		o := &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstanceMigration"},
			ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("%s%.*s", s.namespace, i, "x"), Name: name},
		}
		if i == 0 {
			o.Finalizers = []string{kubevirtv1.VirtualMachineInstanceMigrationFinalizer}
		}
		objects = append(objects, o)
	}
	rq := s.cache.Quotas(s.namespace)[0].DeepCopy()
	rq.Namespace += "x"
	require.NoError(t, s.core.Tracker().Add(rq))
	clients.Metadata = metadatafake.NewSimpleMetadataClient(scheme, objects...)
	reports := run(t.Context(), t, clients, migration.Options{})
	await(reports, 1)
	for _, action := range s.core.Actions() {
		require.NotEqual(t, rq.Namespace, action.GetNamespace(), "nothing is in progress there")
	}
	whole := 0
	for _, action := range s.dynamic.Actions() {
		if action.GetVerb() != "get" && action.GetNamespace() == "" && action.GetResource() == vmimResource {
			whole++
		}
	}
	require.Zero(t, whole)
}

// The migrations of a large cluster are listed page by page.
func TestControllerListsPages(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	pages := 0
	s.dynamic.PrependReactor("list", vmimResource.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetNamespace() != "" {
			return false, nil, nil
		}
		pages++
		page := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigrationList"}}
		page.SetResourceVersion("7")
		if pages < 2 {
			page.SetContinue("more")
			return true, page, nil
		}
		u := dynamic[*kubevirtv1.VirtualMachineInstanceMigration](t, "VirtualMachineInstanceMigration")(s.cache.Snapshot(s.namespace).Migrations[0])
		page.Items = append(page.Items, *u.(*unstructured.Unstructured))
		return true, page, nil
	})
	await(run(t.Context(), t, s.clients(), migration.Options{}), 1)
	require.Equal(t, 2, pages)
}
