package migration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// The typed client of ClientsFor reads the same as a dynamic one, from the list and from the watch,
// and knows that a watch has expired.
func TestTypedClient(t *testing.T) {
	const one = `{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance%s","metadata":{"namespace":"tenant","name":"a","uid":"1"},"status":{"phase":"Running"}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		suffix := map[string]string{
			"/apis/kubevirt.io/v1/namespaces/tenant/virtualmachineinstances":          "",
			"/apis/kubevirt.io/v1/namespaces/tenant/virtualmachineinstancemigrations": "Migration",
		}[r.URL.Path]
		object := fmt.Sprintf(one, suffix)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`, object)
			fmt.Fprint(w, `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}}`)
			return
		}
		fmt.Fprintf(w, `{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance%sList","metadata":{"resourceVersion":"5"},"items":[%s]}`, suffix, object)
	}))
	t.Cleanup(server.Close)
	clients, err := ClientsFor(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	dynamicOnly := clients
	dynamicOnly.Typed = nil
	kept := map[string][]any{}
	for _, clients := range []Clients{clients, dynamicOnly} {
		c, err := NewController(clients, Options{})
		require.NoError(t, err)
		for _, kind := range []string{migrationsKind, instancesKind} {
			s := c.informers.source(kind, "tenant")
			list, err := s.ListWithContext(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			_, isDynamic := list.(*unstructured.UnstructuredList)
			require.Equal(t, clients.Typed == nil, isDynamic)
			listed, err := meta.ExtractList(list)
			require.NoError(t, err)
			require.Len(t, listed, 1)
			w, err := s.WatchWithContext(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			for _, object := range []any{listed[0], (<-w.ResultChan()).Object} {
				object, err = trimmed(object)
				require.NoError(t, err)
				kept[kind] = append(kept[kind], object)
			}
			require.True(t, apierrors.IsResourceExpired(apierrors.FromObject((<-w.ResultChan()).Object)))
		}
	}
	require.Len(t, kept, 2)
	for _, objects := range kept {
		for _, object := range objects {
			require.Empty(t, cmp.Diff(objects[0], object))
		}
	}
	vmim := kept[migrationsKind][0].(*kubevirtv1.VirtualMachineInstanceMigration)
	require.Equal(t, "VirtualMachineInstanceMigration", vmim.Kind, "without it a recorder of another scheme records no event")
	require.EqualValues(t, "1", vmim.UID)
}
